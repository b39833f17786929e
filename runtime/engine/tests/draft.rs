//! The draft module against the reference's, itself in pieces, and what the engine makes of its guesses.

#![allow(clippy::unwrap_used, clippy::panic)]

use coterie_api::launch::Quantization;
use coterie_api::launch::Speculate;
use coterie_engine::backend::Backend;
use coterie_engine::backend::cpu::Cpu;
use coterie_engine::batch::Batch;
use coterie_engine::model::config::Config;
use coterie_engine::model::decoder::{Decoder, DecoderWeights};
use coterie_engine::model::draft::{Draft, DraftWeights};
use coterie_engine::model::{Model, Room};
use coterie_engine::scheduler::Limits;
use coterie_engine::speculation::{DraftLimits, Worth};
use coterie_engine::state::StateRoom;
use coterie_engine::weights::Loader;
use coterie_engine::weights::safetensors::Header;
use coterie_engine::weights::shard::Checkpoint;
use coterie_engine::{Counts, Engine, EngineOptions, Event, LoadError, Request};
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
    let room = Room { blocks: BLOCKS, states: StateRoom::default(), rows: 64 };
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

/// Answers to prompts, and what was counted; with drafts of the module where there are `drafts`.
fn answers(
    prompts: &[Vec<u32>],
    drafts: Option<DraftLimits>,
    together: usize,
    step_tokens: usize,
) -> (Vec<Vec<u32>>, Counts) {
    let options = EngineOptions {
        threads: 1,
        speculate: Speculate::Mtp,
        max_running: together,
        step_tokens,
        // What is shared of a block's last token was seen with another token behind it.
        prefix_cache: false,
        ..EngineOptions::default()
    };
    let adjust = |limits: &mut Limits| limits.drafts = drafts;
    let mut engine = Engine::load_with(&case(), &options, None, adjust, &|_| {}).unwrap();
    let ids: Vec<_> =
        prompts.iter().map(|prompt| engine.submit(Request::new(prompt.clone(), ANSWER)).unwrap()).collect();
    let mut events = Vec::new();
    while !engine.is_idle() {
        engine.step(&mut events);
    }
    let of = |id| {
        let tokens = events.iter().filter_map(|event| match event {
            Event::Token { id: of, token, .. } if *of == id => Some(*token),
            _ => None,
        });
        tokens.collect()
    };
    (ids.into_iter().map(of).collect(), engine.load_now().scheduled)
}

const ANSWER: usize = 60;

/// The counts follow from the module's guesses about the finished texts: so the engine shows it the right rows, in
/// whatever pieces and company, and takes its guesses for the right place.
#[test]
fn the_engine_drafts_what_the_module_guesses() {
    let prompts: Vec<Vec<u32>> = (0..12)
        .map(|number| (0..5 + number).map(|at| (number * 17 + at * at * 7 + at) % 61).collect())
        .collect();
    let all = DraftLimits { module: true, tokens: 3, rows: 99, worth: Worth { first: 0.0, further: 0.0 } };
    let (plain, _) = answers(&prompts, None, 1, 200);
    for (together, step_tokens) in [(1, 200), (1, 7), (5, 200)] {
        let mut expected = [0; 3];
        for (prompt, answer) in prompts.iter().zip(&plain) {
            let text = [&prompt[..], answer].concat();
            let guesses = drafted(&text, text.len());
            let guess = |row: usize| {
                let best = |a: usize, b: usize| if guesses[row][b] > guesses[row][a] { b } else { a };
                (0..guesses[row].len()).reduce(best).unwrap() as u32
            };
            // A prompt of which one token is left for its last step is guessed behind, too.
            let one_left = prompt.len() > step_tokens && prompt.len() % step_tokens == 1;
            let mut known = prompt.len() + usize::from(!one_left);
            // The last token is not guessed: a step always generates one.
            while known + 1 < text.len() {
                let came = guess(known - 2) == text[known];
                expected[0] += 1;
                expected[1] += u64::from(came);
                known += 1 + usize::from(came);
            }
            expected[2] += u64::from(one_left);
        }
        assert!(expected[1] > 5, "the module is never right: {expected:?}");
        let (drafting, counts) = answers(&prompts, Some(all), together, step_tokens);
        assert_eq!(drafting, plain);
        assert_eq!([counts.draft_tokens, counts.accepted_tokens], expected[..2]);
        assert_eq!(expected[2] > 0, step_tokens == 7, "some prompts end so");
    }
}

#[test]
fn a_checkpoint_without_a_module_is_refused_by_name() {
    let dir = case().join("../../mixtral");
    let dir = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    let options = EngineOptions { speculate: Speculate::Mtp, ..EngineOptions::default() };
    let refused = Engine::load(&dir.unwrap(), &options, &|_| {}).err().unwrap();
    assert!(matches!(refused, LoadError::NoDraftModule { .. }), "{refused}");
    assert!(refused.to_string().contains("--speculate lookup"), "{refused}");
}
