//! Models of random weights: of a config.json alone, and of the files that are written of it, the same tokens; and what
//! CPUs do not compute with.

#![allow(clippy::unwrap_used, clippy::panic)]

mod emulated;
mod tiny_families;
mod tiny_mixtral;

use coterie_api::launch::{Device, Quantization, TerminationReason};
use coterie_engine::backend::cpu::Cpu;
use coterie_engine::traffic::Step;
use coterie_engine::untrained::{Outline, write};
use coterie_engine::{Engine, EngineOptions, Event, LoadError, Probe, Request};
use std::path::Path;
use std::sync::Arc;

fn options(untrained: bool, quantization: Quantization) -> EngineOptions {
    EngineOptions { untrained, quantization, threads: 1, cache_tokens: Some(256), ..EngineOptions::default() }
}

/// What follows a prompt, with log probabilities.
fn answer(engine: Result<Engine, LoadError>) -> Vec<(u32, u32)> {
    let mut engine = engine.unwrap();
    let request = Request { top_logprobs: Some(0), ..Request::new(vec![3, 1, 4, 1, 5], 6) };
    engine.submit(request).unwrap();
    let (mut events, mut out) = (Vec::new(), Vec::new());
    while !engine.is_idle() {
        engine.step(&mut events);
        for event in events.drain(..) {
            if let Event::Token { token, logprobs, .. } = event {
                out.push((token, logprobs.unwrap().logprob.to_bits()));
            }
        }
    }
    assert_eq!(out.len(), 6);
    out
}

fn on_cpu(dir: &Path, options: &EngineOptions) -> Result<Engine, LoadError> {
    Engine::load_on(Arc::new(Cpu::new), dir, options, None, |_| {}, &|_| {})
}

/// A folder with nothing but config.json.
fn config_only(config: &serde_json::Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

#[test]
fn random_weights_are_the_same_with_and_without_files() {
    for (name, config) in tiny_families::configs() {
        let dir = config_only(&config);
        let made = answer(on_cpu(dir.path(), &options(true, Quantization::Int8)));
        let outline = Outline::read(dir.path()).unwrap();
        let bytes = write(dir.path(), 3).unwrap();
        let engine = on_cpu(dir.path(), &options(false, Quantization::Int8)).unwrap();
        assert!(bytes > engine.loaded().bytes && engine.loaded().bytes > bytes / 2, "{name}: all was read");
        assert_eq!(answer(Ok(engine)), made, "{name}");
        let inspected = coterie_engine::inspect(dir.path()).unwrap();
        assert_eq!(inspected.weight_bytes, outline.inspection.weight_bytes, "{name}");
    }
}

#[test]
fn a_device_makes_the_weights_that_files_would_have() {
    let dir = config_only(&tiny_mixtral::config());
    let load = |untrained, quantization| {
        let options = options(untrained, quantization);
        Engine::load_on(emulated::backend(), dir.path(), &options, None, |_| {}, &|_| {})
    };
    let made = Quantization::BEST_FIRST.map(|quantization| answer(load(true, quantization)));
    write(dir.path(), 1).unwrap();
    let read = Quantization::BEST_FIRST.map(|quantization| answer(load(false, quantization)));
    assert_eq!(made, read);
    assert!(made[0] != made[1] && made[1] != made[2], "quantization shows");
}

#[test]
fn int4_is_refused_on_cpus() {
    let dir = config_only(&tiny_mixtral::config());
    let error = on_cpu(dir.path(), &options(true, Quantization::Int4)).err().unwrap();
    assert_eq!(
        error.to_string(),
        "--quantization int4 is for GPUs only; use --device gpu, or --quantization int8"
    );
    assert_eq!(error.reason(), TerminationReason::LaunchRejected);
}

/// One row reads its experts, many read all; an embedding of its own is not read, one that is the head is.
#[test]
fn a_step_reads_what_its_rows_need() {
    let mut config = tiny_mixtral::config();
    let bytes = |config: &serde_json::Value, rows: usize, context: usize| {
        let outline = Outline::read(config_only(config).path()).unwrap();
        let step = Step { rows, sequences: rows, context };
        let weights = outline.inspection.weight_bytes.none as f64;
        let experts = outline.inspection.expert_bytes.unwrap().none as f64;
        let table = (outline.inspection.parameters, outline.bytes_of(Quantization::None, Device::Gpu, step));
        (weights, experts, table.1, outline.inspection)
    };
    let table = (config["vocab_size"].as_u64().unwrap() * config["hidden_size"].as_u64().unwrap() * 2) as f64;
    let (all, experts, one, inspection) = bytes(&config, 1, 100);
    let share = f64::from(inspection.experts_per_token) / f64::from(inspection.experts);
    assert!((one.weights - (all - table - experts * (1.0 - share))).abs() < 1.0);
    assert_eq!(one.cache, 100.0 * inspection.kv_bytes_per_token as f64 / 2.0);
    let (all, _, many, _) = bytes(&config, 1000, 0);
    assert!((many.weights - (all - table)).abs() < 1.0);
    assert_eq!(many.cache, 0.0);
    config["tie_word_embeddings"] = true.into();
    let (all, _, tied, _) = bytes(&config, 1000, 0);
    assert!((tied.weights - all).abs() < 1.0);
}

#[test]
fn a_device_can_be_measured() {
    let probe = Probe::of(emulated::device());
    assert!(probe.memory_rate_of(4096, 1).unwrap() > 0.0);
    assert!(probe.upload_rate_of(20_000).unwrap() > 0.0);
    assert!(probe.free().unwrap() > 0);
}
