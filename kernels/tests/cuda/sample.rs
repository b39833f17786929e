//! Tokens by the kernel, beside the same rule in f64 and by whole sorts.

use coterie_kernels::cuda::sample::{Best, NO_TOKEN, Rule, Sample};

use super::machine::Machine;
use super::memory::Memory;
use crate::ops::random::Random;

impl Machine {
    fn sample(&self, logits: &[f32], rules: &[Rule]) -> Vec<u32> {
        let (logits_memory, rules_memory) = (Memory::of(logits), Memory::of(rules));
        let tokens = Memory::of(&vec![7u32; rules.len()]);
        let sample = Sample {
            logits: logits_memory.address(),
            rules: rules_memory.address(),
            tokens: tokens.address(),
            vocabulary: (logits.len() / rules.len()) as u32,
        };
        self.launch(&sample.launch(rules.len() as u32));
        tokens.values()
    }
}

impl Machine {
    fn best(&self, logits: &[f32], vocabulary: usize) -> (Vec<u32>, Vec<f32>) {
        let rows = logits.len() / vocabulary;
        let (logits, tokens) = (Memory::of(logits), Memory::of(&vec![7u32; rows]));
        let values = Memory::of(&vec![7f32; rows]);
        let best = Best {
            logits: logits.address(),
            tokens: tokens.address(),
            values: values.address(),
            vocabulary: vocabulary as u32,
        };
        self.launch(&best.launch(rows as u32));
        (tokens.values(), values.values())
    }
}

/// The first two words of Philox4x32-10 of an index and a seed, as a number in 0..1.
fn uniform(seed: u64, index: u64) -> f64 {
    let (mut counter, mut key) =
        ([index as u32, (index >> 32) as u32, 0, 0], [seed as u32, (seed >> 32) as u32]);
    for _ in 0..10 {
        let (a, b) = (0xD251_1F53 * u64::from(counter[0]), 0xCD9E_8D57 * u64::from(counter[2]));
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    ((u64::from(counter[1]) << 32 | u64::from(counter[0])) >> 11) as f64 / (1u64 << 53) as f64
}

/// The token, and how near the draw was to the next one's share, of the whole.
fn by_definition(logits: &[f32], rule: &Rule) -> (u32, f64) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |x: &f32| (f64::from(x - most) / f64::from(rule.temperature)).exp();
    let mut left: Vec<(u32, f64)> = (0..).zip(logits.iter().map(weight)).collect();
    left.retain(|(_, weight)| *weight >= f64::from(rule.min_p) && *weight > 0.0);
    if rule.top_k > 0 || rule.top_p < 1.0 {
        left.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        left.truncate(if rule.top_k == 0 { left.len() } else { rule.top_k as usize });
        let enough = f64::from(rule.top_p) * left.iter().map(|(_, weight)| weight).sum::<f64>();
        let mut share = 0.0;
        let kept = left.iter().take_while(|(_, weight)| {
            let before = share;
            share += weight;
            before == 0.0 || before < enough
        });
        left.truncate(kept.count());
    }
    let total: f64 = left.iter().map(|(_, weight)| weight).sum();
    let mut rest = uniform(rule.seed, rule.index) * total;
    for (token, weight) in &left {
        if rest < *weight {
            return (*token, rest.min(weight - rest) / total);
        }
        rest -= weight;
    }
    (left[left.len() - 1].0, 0.0)
}

pub fn tokens_are_drawn_by_the_rule(device: &Machine) {
    let mut random = Random::new(3);
    let rule =
        |temperature, top_k, top_p, min_p| Rule { temperature, top_p, min_p, top_k, seed: 0, index: 0 };
    let kinds = [
        rule(1.0, 0, 1.0, 0.0),
        rule(0.7, 5, 1.0, 0.0),
        rule(1.3, 0, 0.8, 0.0),
        rule(0.9, 40, 0.5, 0.05),
        rule(1.0, 0, 1.0, 0.2),
        rule(1.0, 0, 0.0, 0.0),
        rule(1.0, 100_000, 0.99, 0.0),
    ];
    for vocabulary in [1, 40, 1000] {
        let mut logits = random.values(vocabulary);
        logits.iter_mut().for_each(|x| *x *= 3.0);
        if vocabulary > 10 {
            // Equal weights, impossible tokens and broken ones.
            (logits[3], logits[7], logits[9]) = (logits[5], f32::NEG_INFINITY, f32::NAN);
            logits[5] = logits[3];
        }
        let rules: Vec<Rule> = (0..210)
            .map(|i| Rule { seed: random.bits(), index: i as u64 * 0x1_0000_0001, ..kinds[i % kinds.len()] })
            .collect();
        let rows = logits.repeat(rules.len());
        let numbers: Vec<f32> =
            logits.iter().map(|x| if x.is_nan() { f32::NEG_INFINITY } else { *x }).collect();
        for (token, rule) in device.sample(&rows, &rules).into_iter().zip(&rules) {
            let (expected, margin) = by_definition(&numbers, rule);
            assert!(token == expected || margin < 1e-6, "{rule:?} of {vocabulary}: {token}, not {expected}");
        }
    }
    let greedy = [rule(0.0, 0, 1.0, 0.0); 3];
    let logits =
        [1.0, 4.0, f32::NAN, 4.0, f32::NAN, f32::NAN, f32::NAN, f32::NAN, 1.0, f32::INFINITY, 0.0, 0.0];
    assert_eq!(device.sample(&logits, &greedy), [1, NO_TOKEN, NO_TOKEN]);
    let (tokens, values) = device.best(&logits, 4);
    assert_eq!(tokens, [1, 0, 1]);
    assert!(values[0] == 4.0 && values[1].is_nan() && values[2] == f32::INFINITY, "{values:?}");
}
