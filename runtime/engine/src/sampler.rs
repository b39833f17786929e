//! From logits to a token. Each draw's randomness is a function of the request's seed and of how many tokens it has
//! generated, and of nothing else: no generator has a state that another request could move. A GPU draws the very same token
//! from the same logits: weights are summed up as whole numbers.

use crate::constraint::{Constraint, TokenMask};
use crate::model::Logits;
use crate::penalties::Seen;
use crate::request::Sampling;
use coterie_kernels::cpu::isa::Isa;
use coterie_kernels::cpu::logits::weigh;
use thiserror::Error;

/// Chooses tokens; keeps its scratch memory between calls.
#[derive(Debug, Default)]
pub struct Sampler {
    /// Logits, then weights: shares of the most probable token's probability.
    row: Vec<f32>,
    order: Vec<u32>,
    mask: TokenMask,
}

/// Why no token could be chosen. The sentence is the client's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoToken {
    /// The logits of a row are not numbers: the model has broken down on this request.
    #[error("the model's output for this request is not a number; its weights may be damaged")]
    NotNumbers,
    /// The constraint gave up.
    #[error("the answer's format could not be followed: {0}")]
    Constraint(String),
    /// No token that the constraint allows has a probability.
    #[error("the answer's format allows no token here that the model can generate")]
    NothingAllowed,
}

impl Sampler {
    /// The token behind a row, for a request that has `generated` tokens so far and penalties on `seen`.
    ///
    /// A temperature that is not positive is 0; `top_p` is clamped to 0..=1, and at 0 leaves the most probable token.
    pub fn sample(
        &mut self,
        logits: &dyn Logits,
        row: usize,
        sampling: &Sampling,
        seen: &Seen,
        constraint: Option<&mut (dyn Constraint + 'static)>,
        generated: usize,
    ) -> Result<u32, NoToken> {
        let masked = constraint.is_some();
        if let Some(drawn) = logits.drawn(row).filter(|_| !masked && sampling.takes_logits_as_they_are()) {
            return drawn.ok_or(NoToken::NotNumbers);
        }
        let (best, max) = logits.argmax(row);
        if !max.is_finite() {
            return Err(NoToken::NotNumbers);
        }
        if let Some(constraint) = constraint {
            self.mask.reset(logits.vocabulary());
            constraint.allow(&mut self.mask).map_err(NoToken::Constraint)?;
        }
        let greedy = sampling.temperature.is_nan() || sampling.temperature <= 0.0;
        let as_they_are = sampling.takes_logits_as_they_are();
        if greedy && as_they_are && (!masked || self.mask.allows(best)) {
            return Ok(best);
        }
        logits.copy_row(row, &mut self.row);
        sampling.change(&mut self.row, seen);
        if masked {
            self.forbid();
        }
        let (best, max) = match as_they_are && !masked {
            true => (best, max),
            false => self.best().ok_or(NoToken::NothingAllowed)?,
        };
        if greedy {
            return Ok(best);
        }
        weigh(Isa::best(), &mut self.row, max, sampling.temperature, sampling.min_p);
        let draw = uniform(sampling.seed, generated as u64);
        Ok(if sampling.top_p < 1.0 || sampling.top_k > 0 {
            let kept = self.nucleus(sampling.top_k, sampling.top_p);
            pick(&self.row, self.order[..kept].iter().copied(), draw)
        } else {
            pick(&self.row, 0..self.row.len() as u32, draw)
        })
    }

    /// Makes the tokens that the mask leaves out impossible.
    fn forbid(&mut self) {
        for (token, logit) in (0..).zip(&mut self.row) {
            if !self.mask.allows(token) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// The largest logit and its token, the lowest on a tie; none if no token is possible.
    fn best(&self) -> Option<(u32, f32)> {
        let possible = (0..).zip(self.row.iter().copied()).filter(|(_, logit)| *logit > f32::NEG_INFINITY);
        possible.reduce(|best, next| if next.1 > best.1 { next } else { best })
    }

    /// Orders the most probable tokens, best first, ties lowest id first: at most `top_k` of them (0 is all), and of
    /// these the fewest whose share of the `top_k`'s weight reaches `top_p`. Returns how many they are, at least one.
    /// Sorts only as far as it must look.
    fn nucleus(&mut self, top_k: usize, top_p: f32) -> usize {
        let Sampler { row, order, .. } = self;
        order.clear();
        order.extend(0..row.len() as u32);
        let before = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
        if top_k > 0 && top_k < order.len() {
            order.select_nth_unstable_by(top_k, before);
            order.truncate(top_k);
        }
        let mass = |token: &u32| mass(row[*token as usize]);
        let all: u64 = order.iter().map(mass).sum();
        let enough = ((f64::from(top_p) * all as f64) as u64).max(1);

        let (mut sorted, mut share) = (0, 0);
        while sorted < order.len() {
            let next = (sorted * 8).max(64).min(order.len());
            if next < order.len() {
                order[sorted..].select_nth_unstable_by(next - sorted, before);
            }
            order[sorted..next].sort_unstable_by(before);
            for (at, token) in order.iter().enumerate().take(next).skip(sorted) {
                share += mass(token);
                if top_p < 1.0 && share >= enough {
                    return at + 1;
                }
            }
            sorted = next;
        }
        order.len()
    }
}

/// A weight as a whole number of 2^-40: sums of them do not depend on their order. What is lighter has none.
fn mass(weight: f32) -> u64 {
    (weight * (1u64 << 40) as f32) as u64
}

/// The candidate in whose share of the weights `draw`, 0 to 1, falls.
fn pick(weights: &[f32], candidates: impl Iterator<Item = u32> + Clone, draw: f64) -> u32 {
    let mass = |token: u32| mass(weights[token as usize]);
    let total: u64 = candidates.clone().map(mass).sum();
    let (mut left, mut last) = (((draw * total as f64) as u64).min(total.saturating_sub(1)), 0);
    for token in candidates {
        let share = mass(token);
        if left < share {
            return token;
        }
        left -= share;
        last = token;
    }
    last
}

/// Number `index` of the sequence that `seed` names, uniform in 0..1 with 53 bits.
fn uniform(seed: u64, index: u64) -> f64 {
    let [low, high, ..] =
        philox([index as u32, (index >> 32) as u32, 0, 0], [seed as u32, (seed >> 32) as u32]);
    ((u64::from(high) << 32 | u64::from(low)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a block of random bits from a
/// counter and a key.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = 0xD251_1F53 * u64::from(counter[0]);
        let b = 0xCD9E_8D57 * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(Vec<f32>);

    impl Logits for Row {
        fn vocabulary(&self) -> usize {
            self.0.len()
        }
        fn argmax(&self, _: usize) -> (u32, f32) {
            let best = |a: usize, b: usize| if self.0[b] > self.0[a] || self.0[a].is_nan() { b } else { a };
            let best = (0..self.0.len()).reduce(best).unwrap();
            (best as u32, self.0[best])
        }
        fn log_softmax_top(&self, _: usize, token: u32, _: usize) -> (f32, Vec<(u32, f32)>) {
            (self.0[token as usize], Vec::new())
        }
        fn copy_row(&self, _: usize, out: &mut Vec<f32>) {
            out.clone_from(&self.0);
        }
    }

    fn sampling(temperature: f32, top_p: f32, seed: u64) -> Sampling {
        Sampling { temperature, top_p, seed, ..Sampling::greedy() }
    }

    fn sample(
        sampler: &mut Sampler,
        row: &Row,
        sampling: &Sampling,
        generated: usize,
    ) -> Result<u32, NoToken> {
        sampler.sample(row, 0, sampling, &Seen::default(), None, generated)
    }

    fn draws(logits: &Row, temperature: f32, top_p: f32, count: usize) -> Vec<usize> {
        let mut sampler = Sampler::default();
        let mut seen = vec![0; logits.0.len()];
        for i in 0..count {
            let token = sample(&mut sampler, logits, &sampling(temperature, top_p, i as u64), 3).unwrap();
            seen[token as usize] += 1;
        }
        seen
    }

    #[test]
    fn philox_gives_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([0xffff_ffff; 4], [0xffff_ffff; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn temperature_zero_is_the_lowest_of_the_best() {
        let row = Row(vec![1.0, 4.0, 4.0, f32::NAN]);
        for temperature in [0.0, -1.0, f32::NAN] {
            assert_eq!(sample(&mut Sampler::default(), &row, &sampling(temperature, 1.0, 9), 0), Ok(1));
        }
    }

    #[test]
    fn shares_follow_the_temperature() {
        let row = Row(vec![0.0, (3f32).ln(), f32::NEG_INFINITY, f32::NAN]);
        let seen = draws(&row, 1.0, 1.0, 4000);
        assert!((2850..3150).contains(&seen[1]) && seen[2] + seen[3] == 0, "{seen:?}");
        // At temperature 1/2 the odds are 1 : 9.
        let seen = draws(&row, 0.5, 1.0, 4000);
        assert!((3500..3700).contains(&seen[1]), "{seen:?}");
    }

    #[test]
    fn the_nucleus_is_the_smallest_set_that_reaches_top_p() {
        let row = Row([0.1f32, 0.4, 0.2, 0.3].map(f32::ln).to_vec());
        assert_eq!(draws(&row, 1.0, 0.39, 200), [0, 200, 0, 0]);
        let seen = draws(&row, 1.0, 0.65, 2000);
        assert!(seen[0] == 0 && seen[2] == 0 && (1000..1300).contains(&seen[1]), "{seen:?}");
        assert!(draws(&row, 1.0, 0.75, 2000)[2] > 0);
        assert_eq!(draws(&row, 1.0, 0.0, 50), [0, 50, 0, 0]);
    }

    #[test]
    fn a_long_nucleus_is_found_in_order() {
        let mut sampler = Sampler { row: vec![1.0; 5000], ..Sampler::default() };
        sampler.row[4000] = 2.0;
        let kept = sampler.nucleus(0, 0.5);
        assert_eq!(kept, 2500);
        assert_eq!(sampler.order[..3], [4000, 0, 1]);
        assert_eq!(sampler.order[kept - 1], 2498);
        assert_eq!(sampler.nucleus(0, 1.0), 5000);
    }

    #[test]
    fn a_draw_depends_on_seed_and_index_only() {
        let row = Row(vec![0.0; 1000]);
        let mut sampler = Sampler::default();
        let first = sample(&mut sampler, &row, &sampling(1.0, 1.0, 5), 0);
        sample(&mut sampler, &row, &sampling(1.0, 0.3, 6), 1).unwrap();
        assert_eq!(sample(&mut sampler, &row, &sampling(1.0, 1.0, 5), 0), first);
        assert_ne!(sample(&mut sampler, &row, &sampling(1.0, 1.0, 5), 1), first);
        assert_ne!(sample(&mut sampler, &row, &sampling(1.0, 1.0, 6), 0), first);
    }

    #[test]
    fn logits_that_are_no_numbers_are_told() {
        for broken in [f32::NAN, f32::INFINITY] {
            let row = Row(vec![broken; 3]);
            assert_eq!(
                sample(&mut Sampler::default(), &row, &sampling(1.0, 1.0, 0), 0),
                Err(NoToken::NotNumbers)
            );
        }
        let row = Row(vec![f32::NAN; 3]);
        assert_eq!(
            sample(&mut Sampler::default(), &row, &sampling(0.0, 1.0, 0), 0),
            Err(NoToken::NotNumbers)
        );
    }

    /// Allows the tokens that it lists.
    #[derive(Clone, Debug)]
    struct Only(Vec<u32>);

    impl Constraint for Only {
        fn allow(&mut self, mask: &mut TokenMask) -> Result<(), String> {
            self.0.iter().for_each(|token| mask.allow(*token));
            Ok(())
        }
        fn accept(&mut self, _: u32) -> Result<(), String> {
            Ok(())
        }
        fn fork(&self) -> Box<dyn Constraint> {
            Box::new(self.clone())
        }
    }

    #[test]
    fn a_constraint_leaves_the_best_of_what_it_allows() {
        let row = Row(vec![3.0, 9.0, 5.0, 5.0]);
        for temperature in [0.0, 0.01] {
            let choose = |allowed: &[u32]| {
                let mut only = Only(allowed.to_vec());
                let sampling = sampling(temperature, 0.5, 1);
                Sampler::default().sample(&row, 0, &sampling, &Seen::default(), Some(&mut only), 0)
            };
            assert_eq!(choose(&[0, 1]), Ok(1));
            assert_eq!(choose(&[0, 2, 3]), Ok(2));
            assert_eq!(choose(&[0]), Ok(0));
            assert_eq!(choose(&[]), Err(NoToken::NothingAllowed));
        }
    }

    /// The tokens that may be drawn and their probabilities, by the definition of each parameter.
    fn by_definition(row: &[f32], sampling: &Sampling) -> Vec<f64> {
        let scaled: Vec<f64> = row.iter().map(|x| f64::from(x / sampling.temperature)).collect();
        let total: f64 = scaled.iter().map(|x| x.exp()).sum();
        let mut left: Vec<(usize, f64)> = scaled.iter().map(|x| x.exp() / total).enumerate().collect();
        left.sort_by(|a, b| b.1.total_cmp(&a.1));
        let best = left[0].1;
        left.retain(|(_, p)| *p >= f64::from(sampling.min_p) * best);
        left.truncate(if sampling.top_k == 0 { row.len() } else { sampling.top_k });
        let total: f64 = left.iter().map(|(_, p)| p).sum();
        let mut share = 0.0;
        let within = |(_, p): &&(usize, f64)| {
            let first_of_all = share == 0.0;
            let reached = share >= f64::from(sampling.top_p) * total;
            share += p;
            first_of_all || !reached
        };
        let kept: Vec<&(usize, f64)> = left.iter().take_while(within).collect();
        let total: f64 = kept.iter().map(|(_, p)| p).sum();
        let mut probabilities = vec![0.0; row.len()];
        kept.iter().for_each(|(token, p)| probabilities[*token] = p / total);
        probabilities
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 40, ..Default::default() })]

        /// Draws follow the distribution that the parameters define.
        #[test]
        fn draws_follow_the_definition(
            row in proptest::collection::hash_set(-40i8..40, 2..12),
            temperature in 0.3f32..2.0, top_k in 0usize..5, top_p in 0.2f32..1.0, min_p in 0.0f32..0.3,
        ) {
            // Distinct logits, far enough apart that rounding decides nothing.
            let row: Vec<f32> = row.into_iter().map(|x| f32::from(x) * 0.1 + 0.013).collect();
            let sampling = Sampling { temperature, top_k, top_p, min_p, ..Sampling::greedy() };
            let expected = by_definition(&row, &sampling);
            let (mut sampler, logits, draws) = (Sampler::default(), Row(row), 4000);
            let mut seen = vec![0.0; expected.len()];
            for seed in 0..draws {
                let token = sample(&mut sampler, &logits, &Sampling { seed, ..sampling.clone() }, 0).unwrap();
                seen[token as usize] += 1.0 / draws as f64;
            }
            for (seen, expected) in seen.iter().zip(&expected) {
                // Five standard deviations; what may not be drawn never is.
                let tolerance = 5.0 * (expected * (1.0 - expected) / draws as f64).sqrt() + 1e-9;
                proptest::prop_assert!((seen - expected).abs() <= tolerance, "{seen} is not {expected}");
            }
        }
    }
}
