//! What a backend of coarser numbers than f32 must do: be near the reference, and give a request the same bits whatever
//! runs beside it.
//!
//! The golden checkpoints are the hard end for rounded numbers: random weights amplify every error, and where a gate's
//! experts nearly tie, another one is picked.

#![allow(clippy::unwrap_used, clippy::panic)]

pub mod draws;
mod scene;

use crate::golden::{answers, cases, golden, kl, name, options};
use crate::{tiny_families, tiny_mixtral};
use coterie_api::launch::Quantization;
use coterie_engine::backend::Backend;
use coterie_engine::moe::host::MakeBackend;
use coterie_engine::{Engine, EngineOptions};
use std::collections::BTreeMap;
use std::path::Path;

/// KL(reference ‖ engine), nats a position: the mean of the worst case of all, of a family's best case, and the worst
/// position of all. With rows and caches of bf16, 0.029, 0.0029 and 3.4 were measured.
const MEAN_KL: f64 = 0.045;
const BEST_CASE_KL: f64 = 0.0045;
const WORST_KL: f64 = 6.5;
/// Share of a case's positions at which another token is the best. 0.09 was measured.
const OTHERS: f64 = 0.12;

/// How far an engine is from the reference, over all positions of a case's prompts and answers.
#[derive(Default)]
struct Distance {
    positions: usize,
    /// KL(reference ‖ engine), nats: the sum, and the largest.
    sum: f64,
    worst: f64,
    /// Positions at which another token is the best.
    others: usize,
}

impl Distance {
    fn add(&mut self, reference: &[f32], said: &[f32]) {
        let best = |row: &[f32]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
        let (divergence, theirs, ours) = (kl(reference, said), best(reference), best(said));
        assert!(divergence.is_finite());
        self.positions += 1;
        self.sum += divergence;
        self.worst = self.worst.max(divergence);
        self.others += usize::from(ours != theirs);
    }
}

/// Prompts with the reference's own answers behind them, scored: after another choice texts could not be compared.
fn distance<B>(backend: &MakeBackend<B>, case: &Path) -> Distance
where
    B: Backend + 'static,
    B::Rope: Clone,
{
    let (golden, tensors) = golden(case);
    let texts: Vec<Vec<u32>> = golden.prompts.iter().map(|p| [&p.tokens[..], &p.greedy].concat()).collect();
    let options = EngineOptions { threads: 1, ..options(Quantization::None) };
    let engine = Engine::load_on(backend.clone(), case, &options, None, |_| {}, &|_| {});
    let engine = engine.unwrap_or_else(|why| panic!("{}: {why}", name(case)));
    let mut distance = Distance::default();
    for (said, prompt) in answers(engine, &texts, 1).iter().zip(&golden.prompts) {
        let rows = &tensors[&prompt.logprobs];
        let reference = rows[..rows.len() - 1].iter().chain(&tensors[&prompt.greedy_logprobs]);
        assert_eq!(said.prompt.len(), reference.clone().count());
        reference.zip(&said.prompt).for_each(|(reference, said)| distance.add(reference, said));
    }
    distance
}

/// Every golden checkpoint of every family.
pub fn near_the_reference<B>(backend: &MakeBackend<B>)
where
    B: Backend + 'static,
    B::Rope: Clone,
{
    let mut best = BTreeMap::new();
    for case in cases() {
        let Distance { positions, sum, worst, others } = distance(backend, &case);
        let (name, mean) = (name(&case), sum / positions as f64);
        println!(
            "{name}: KL(reference ‖ engine) mean {mean:.2e}, worst {worst:.1e}; {others} of {positions} tokens are others"
        );
        assert!(mean < MEAN_KL && worst < WORST_KL, "{name}: mean {mean}, worst {worst}");
        assert!((others as f64) < OTHERS * positions as f64, "{name}: {others} other tokens");
        let family = name.split('/').next().unwrap_or(&name).to_owned();
        let of_family: &mut f64 = best.entry(family).or_insert(mean);
        *of_family = of_family.min(mean);
    }
    for (family, mean) in best {
        assert!(mean < BEST_CASE_KL, "{family}: the best case is {mean} from the reference");
    }
}

/// Beside others, in chunks, with guesses, and taken up again after a preemption: the very same bits as alone, where another
/// backend may take another way to them.
pub fn alone_as_in_company<B>(in_company: &MakeBackend<B>, by_itself: &MakeBackend<B>)
where
    B: Backend + 'static,
    B::Rope: Clone,
{
    let mut seen = [0; 4];
    let families =
        tiny_families::configs().into_iter().map(|(name, config)| (name, config, Quantization::None));
    let quantized = [("Mixtral in int8", Quantization::Int8), ("Mixtral in int4", Quantization::Int4)];
    let quantized = quantized.map(|(name, quantization)| (name, tiny_mixtral::config(), quantization));
    for (name, config, quantization) in families.chain(quantized) {
        let dir = tempfile::tempdir().unwrap();
        tiny_families::write_random(dir.path(), &config, 8);
        let module = config["num_nextn_predict_layers"] == 1;
        let (together, counts) = scene::together(in_company, dir.path(), quantization, module);
        let alone = scene::alone(by_itself, dir.path(), quantization);
        for (number, (together, alone)) in together.iter().zip(&alone).enumerate() {
            assert_eq!(together, alone, "{name}: request {number}");
        }
        let refused = counts.draft_tokens - counts.accepted_tokens;
        let of_family = [counts.cached_tokens, counts.preemptions, counts.accepted_tokens, refused];
        println!("{name}: cached, preempted, guessed right and wrong: {of_family:?}");
        seen.iter_mut().zip(of_family).for_each(|(all, of_family)| *all += of_family);
    }
    assert!(seen.iter().all(|seen| *seen >= 5), "the scenes are too easy: {seen:?}");
}
