//! The draft module against the reference's, and itself in pieces.

#![allow(clippy::unwrap_used, clippy::panic)]

use coterie_api::launch::Quantization;
use coterie_engine::backend::Backend;
use coterie_engine::backend::cpu::Cpu;
use coterie_engine::batch::Batch;
use coterie_engine::model::config::Config;
use coterie_engine::model::decoder::{Decoder, DecoderWeights};
use coterie_engine::model::draft::{Draft, DraftWeights};
use coterie_engine::model::{Model, Room};
use coterie_engine::state::StateRoom;
use coterie_engine::weights::Loader;
use coterie_engine::weights::safetensors::Header;
use coterie_engine::weights::shard::Checkpoint;
use std::path::{Path, PathBuf};

const BLOCKS: usize = 6;
const TABLE: [u32; BLOCKS] = [4, 1, 5, 0, 3, 2];

fn case() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/deepseek_v3/draft")
}

fn load() -> (Config, Decoder<Cpu>, Draft<Cpu>) {
    let (config, checkpoint) = (Config::read(&case()).unwrap(), Checkpoint::open(&case()).unwrap());
    let cpu = Cpu::new(2);
    let loader = Loader::new(&checkpoint, &cpu, Quantization::None, &|_| {});
    let weights = DecoderWeights::load(&loader, &config).unwrap();
    let room = Room { blocks: BLOCKS, states: StateRoom::default() };
    let draft = Draft::new(&cpu, &config, DraftWeights::load(&loader, &config).unwrap(), room).unwrap();
    let decoder = Decoder::new(cpu, &config, weights, room, None).unwrap();
    (config, decoder, draft)
}

/// Log probabilities of the token after the next, row by row, of a prompt that comes in pieces of `step` tokens.
fn drafted(tokens: &[u32], step: usize) -> Vec<Vec<f32>> {
    let (config, mut model, mut draft) = load();
    let mut rows = Vec::new();
    let last = tokens.len() - 1;
    for start in (0..last).step_by(step) {
        let end = last.min(start + step);
        let mut batch = Batch::default();
        batch.push(&tokens[start..end], start, &TABLE, 16);
        batch.logit_rows = (0..(end - start) as u32).collect();
        model.forward(&batch);
        let seen = model.normed(0..end - start);
        batch.clear();
        batch.push(&tokens[start + 1..=end], start, &TABLE, 16);
        let logits = draft.logits(&model, &seen, &batch);
        for row in 0..end - start {
            let (_, all) = model.backend().log_softmax_top(&logits, row, 0, config.vocabulary);
            let mut by_token = vec![f32::NAN; config.vocabulary];
            all.into_iter().for_each(|(token, logprob)| by_token[token as usize] = logprob);
            rows.push(by_token);
        }
    }
    rows
}

#[test]
fn every_guess_equals_the_references_and_comes_in_any_pieces() {
    let golden: serde_json::Value =
        serde_json::from_slice(&std::fs::read(case().join("golden.json")).unwrap()).unwrap();
    let bytes = std::fs::read(case().join("golden.safetensors")).unwrap();
    let tensors = Header::parse(&bytes).unwrap().tensors;
    let mut compared = 0;
    for (number, prompt) in golden["prompts"].as_array().unwrap().iter().enumerate() {
        let tokens: Vec<u32> = serde_json::from_value(prompt["tokens"].clone()).unwrap();
        let Some(entry) = tensors.get(&format!("{number}.draft_logprobs")) else { continue };
        let theirs = bytes[entry.bytes.clone()].chunks_exact(4);
        let theirs: Vec<f32> = theirs.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let ours = drafted(&tokens, tokens.len());
        assert_eq!(ours.iter().flatten().count(), theirs.len());
        for (ours, theirs) in ours.iter().flatten().zip(&theirs) {
            assert!((ours - theirs).abs() < 1e-3, "prompt {number}: {ours} {theirs}");
        }
        for step in [1, 7, 16] {
            assert_eq!(drafted(&tokens, step), ours, "prompt {number} in pieces of {step}");
        }
        compared += 1;
    }
    assert_eq!(compared, 5);
}
