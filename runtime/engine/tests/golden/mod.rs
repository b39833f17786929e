//! Golden checkpoints (`tests/golden`), what the reference says to their prompts, and what an engine says.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use coterie_api::launch::Quantization;
use coterie_engine::weights::safetensors::{Dtype, Header};
use coterie_engine::{Engine, EngineOptions, Event, Request, RequestId, TokenLogprobs};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
pub struct Golden {
    pub prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
pub struct Prompt {
    pub tokens: Vec<u32>,
    pub greedy: Vec<u32>,
    pub logprobs: String,
    pub greedy_logprobs: String,
}

/// Log probabilities, one row a position, the whole vocabulary each.
pub type Rows = Vec<Vec<f32>>;

/// What the engine says to one prompt: the distributions behind its tokens but the last, and each greedy choice
/// with the distribution that it was taken from.
#[derive(Default)]
pub struct Said {
    pub prompt: Rows,
    pub greedy: Vec<u32>,
    pub greedy_rows: Rows,
}

/// Every case of every family.
pub fn cases() -> Vec<PathBuf> {
    // On a machine without cargo, whoever starts the tests says where the checkout's files are.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let root = Path::new(&package).join("../../tests/golden");
    let folders = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).expect("tests/golden is part of the repository");
        let mut folders: Vec<PathBuf> =
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
        folders.sort();
        folders
    };
    let cases: Vec<PathBuf> = folders(&root).iter().flat_map(|family| folders(family)).collect();
    assert!(cases.len() >= 27, "golden cases are missing: {cases:?}");
    cases
}

/// `family/case`
pub fn name(case: &Path) -> String {
    let part = |path: &Path| path.file_name().unwrap().display().to_string();
    format!("{}/{}", part(case.parent().unwrap()), part(case))
}

pub fn golden(case: &Path) -> (Golden, HashMap<String, Rows>) {
    let golden: Golden = serde_json::from_slice(&std::fs::read(case.join("golden.json")).unwrap()).unwrap();
    let bytes = std::fs::read(case.join("golden.safetensors")).unwrap();
    let tensors = Header::parse(&bytes).unwrap().tensors.into_iter().map(|(name, entry)| {
        assert_eq!(entry.dtype, Dtype::F32);
        let values = bytes[entry.bytes].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let values: Vec<f32> = values.collect();
        (name, values.chunks(entry.shape[1]).map(<[f32]>::to_vec).collect())
    });
    let tensors = tensors.collect();
    (golden, tensors)
}

/// How an engine is loaded whose answers are compared.
pub fn options(quantization: Quantization) -> EngineOptions {
    EngineOptions {
        quantization,
        context_length: Some(128),
        threads: 2,
        max_running: 8,
        ..EngineOptions::default()
    }
}

/// All prompts in one batch.
pub fn answers(mut engine: Engine, prompts: &[Vec<u32>], max_tokens: usize) -> Vec<Said> {
    let vocabulary = engine.vocabulary();
    let ids: Vec<RequestId> = prompts
        .iter()
        .map(|tokens| {
            let all = Some(vocabulary);
            let request = Request::new(tokens.clone(), max_tokens);
            engine.submit(Request { top_logprobs: all, prompt_logprobs: all, ..request }).unwrap()
        })
        .collect();
    let mut events = Vec::new();
    while !engine.is_idle() {
        engine.step(&mut events);
    }
    let mut said: Vec<Said> = prompts.iter().map(|_| Said::default()).collect();
    let number = |id: RequestId| ids.iter().position(|i| *i == id).unwrap();
    for event in events {
        match event {
            Event::Prompt { id, logprobs, .. } => {
                said[number(id)].prompt =
                    logprobs.into_iter().flatten().map(|l| row(&l, vocabulary)).collect();
            }
            Event::Token { id, token, logprobs, .. } => {
                let said = &mut said[number(id)];
                said.greedy.push(token);
                said.greedy_rows.push(row(&logprobs.unwrap(), vocabulary));
            }
            Event::Started { .. } => {}
            Event::Failed { why, .. } => panic!("{why}"),
        }
    }
    said
}

fn row(logprobs: &TokenLogprobs, vocabulary: usize) -> Vec<f32> {
    let mut row = vec![f32::NAN; vocabulary];
    for &(token, logprob) in &logprobs.top {
        row[token as usize] = logprob;
    }
    assert_eq!(row[logprobs.token as usize], logprobs.logprob);
    row
}

pub fn largest_difference(ours: &Rows, theirs: &[Vec<f32>]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let pairs = ours.iter().flatten().zip(theirs.iter().flatten());
    // `max` would drop a NaN.
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, |most, d| if d <= most { most } else { d })
}

/// Σ p (log p − log q), in nats.
pub fn kl(p: &[f32], q: &[f32]) -> f64 {
    p.iter().zip(q).map(|(p, q)| f64::from(*p).exp() * (f64::from(*p) - f64::from(*q))).sum()
}
