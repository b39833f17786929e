//! The CUDA backend, its kernels in emulation: golden checkpoints of every family, and the promise that a request gets the same
//! bits whatever runs beside it.
//!
//! Rows are rounded to bf16 before tensor cores, and caches are bf16, so answers are near the reference's, not equal to
//! them. The golden checkpoints are the hard end: random weights amplify every error, and where a gate's experts nearly
//! tie, another one is picked.

#![allow(clippy::unwrap_used, clippy::panic)]

mod emulated;
mod golden;
mod tiny_families;
mod tiny_mixtral;

use coterie_api::launch::Quantization;
use coterie_engine::{Engine, EngineOptions, LoadError};
use emulated::scene;
use golden::{answers, cases, golden, kl, name, options};
use std::path::Path;

/// KL(reference ‖ CUDA), nats a position: the mean of the worst case, and the worst position of all.
const MEAN_KL: f64 = 0.06;
const WORST_KL: f64 = 6.5;
/// A token whose logarithm is better by so much is the best here, too.
const MARGIN: f32 = 3.0;

fn load(dir: &Path, options: &EngineOptions) -> Result<Engine, LoadError> {
    Engine::load_on(emulated::backend(), dir, options, None, |_| {}, &|_| {})
}

/// How far an engine is from the reference, over all positions of a case's prompts and answers.
#[derive(Default)]
struct Distance {
    positions: usize,
    /// KL(reference ‖ engine), nats: the sum, and the largest.
    sum: f64,
    worst: f64,
    /// Positions at which another token is the best, and by how much the reference's was better at most, nats.
    others: usize,
    margin: f32,
}

impl Distance {
    fn add(&mut self, reference: &[f32], said: &[f32]) {
        let best = |row: &[f32]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
        let (divergence, theirs, ours) = (kl(reference, said), best(reference), best(said));
        assert!(divergence.is_finite());
        self.positions += 1;
        self.sum += divergence;
        self.worst = self.worst.max(divergence);
        if ours != theirs {
            self.others += 1;
            self.margin = self.margin.max(reference[theirs] - reference[ours]);
        }
    }
}

/// Prompts with the reference's own answers behind them, scored: after another choice texts could not be compared.
fn distance(case: &Path, quantization: Quantization) -> Distance {
    let (golden, tensors) = golden(case);
    let texts: Vec<Vec<u32>> = golden.prompts.iter().map(|p| [&p.tokens[..], &p.greedy].concat()).collect();
    let options = EngineOptions { threads: 1, ..options(quantization) };
    let engine = load(case, &options).unwrap_or_else(|why| panic!("{}: {why}", name(case)));
    let mut distance = Distance::default();
    for (said, prompt) in answers(engine, &texts, 1).iter().zip(&golden.prompts) {
        let rows = &tensors[&prompt.logprobs];
        let reference = rows[..rows.len() - 1].iter().chain(&tensors[&prompt.greedy_logprobs]);
        assert_eq!(said.prompt.len(), reference.clone().count());
        reference.zip(&said.prompt).for_each(|(reference, said)| distance.add(reference, said));
    }
    distance
}

#[test]
fn every_golden_checkpoint_is_near_the_reference() {
    let mut margin = 0.0f32;
    let mut worst = 0.0f64;
    for case in cases() {
        let distance = distance(&case, Quantization::None);
        let Distance { positions, sum, others, .. } = distance;
        let (name, mean) = (name(&case), sum / positions as f64);
        println!(
            "{name}: KL(reference ‖ CUDA) mean {mean:.1e}, worst {:.1e}; {others} of {positions} tokens are others, by up to {:.2}",
            distance.worst, distance.margin
        );
        assert!(mean < MEAN_KL, "{name}: mean {mean}");
        (worst, margin) = (worst.max(distance.worst), margin.max(distance.margin));
    }
    assert!(worst < WORST_KL, "worst position {worst}");
    assert!(margin < MARGIN, "a token that was better by {margin}");
}

/// In whatever company, chunks, guesses, and taken up again: the very same bits.
fn assert_alone_as_in_company(name: &str, dir: &Path, quantization: Quantization, module: bool) -> [u64; 4] {
    let (together, counts) = scene::together(dir, quantization, module);
    for (number, (together, alone)) in together.iter().zip(scene::alone(dir, quantization)).enumerate() {
        assert_eq!(*together, alone, "{name}: request {number}");
    }
    println!(
        "{name}: {} tokens were cached, {} preempted, {} of {} drafted came",
        counts.cached_tokens, counts.preemptions, counts.accepted_tokens, counts.draft_tokens
    );
    [
        counts.cached_tokens,
        counts.preemptions,
        counts.accepted_tokens,
        counts.draft_tokens - counts.accepted_tokens,
    ]
}

#[test]
fn a_request_of_every_family_gets_the_same_bits_whatever_runs_beside_it() {
    let mut seen = [0; 4];
    for (name, config) in tiny_families::configs() {
        let dir = tempfile::tempdir().unwrap();
        tiny_families::write_random(dir.path(), &config, 8);
        let module = config["num_nextn_predict_layers"] == 1;
        let of_family = assert_alone_as_in_company(name, dir.path(), Quantization::None, module);
        seen.iter_mut().zip(of_family).for_each(|(all, of_family)| *all += of_family);
    }
    assert!(
        seen.iter().all(|seen| *seen > 10),
        "too little was cached, preempted, accepted, refused: {seen:?}"
    );
}

#[test]
fn so_does_one_of_int8() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny_mixtral::config();
    tiny_mixtral::write(dir.path(), &config, &tiny_mixtral::tensors(&config, 3));
    assert_alone_as_in_company("Mixtral in int8", dir.path(), Quantization::Int8, false);
}
