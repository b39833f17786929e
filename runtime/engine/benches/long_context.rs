//! A prompt of a thousand to a million tokens: `cargo bench -p coterie-engine --bench long_context -- [TOKENS…]`.
//!
//! Two tiny random models of MiniMax-Text-01's form: `hybrid` has its mix of layers, seven of lightning attention to one of
//! softmax attention, `lightning` the first kind alone. Each row is a process of its own, so that its memory is its own.
//! Both process prompts in steps of 512 rows, with the prefix cache on and a snapshot every 64 blocks, then ever
//! sparser.

#[path = "../tests/tiny_families/mod.rs"]
mod tiny_families;
#[path = "../tests/tiny_mixtral/mod.rs"]
mod tiny_mixtral;

use std::process::Command;
use std::time::{Duration, Instant};

use coterie_engine::{Engine, EngineOptions, Event, Request, inspect};
use serde_json::{Value, json};

/// Tokens that are generated behind the prompt and timed.
const DECODED: usize = 65;
const LENGTHS: [usize; 6] = [1_000, 4_000, 16_000, 64_000, 250_000, 1_000_000];
const MIB: f64 = (1 << 20) as f64;

fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if let [model, tokens] = &given[..]
        && let (Some(layers), Ok(tokens)) = (layers_of(model), tokens.parse())
    {
        return measure(model, &layers, tokens);
    }
    let given: Vec<usize> = given.iter().filter_map(|argument| argument.parse().ok()).collect();
    let lengths = if given.is_empty() { &LENGTHS[..] } else { &given };
    println!(
        "| model | prompt | prefill, s | tokens/s | decode, ms a token | resident, MiB | cache, MiB | state, KiB |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    let program = std::env::current_exe().expect("a program knows where it is");
    for model in ["lightning", "hybrid"] {
        for tokens in lengths {
            let status = Command::new(&program).args([model, &tokens.to_string()]).status();
            assert!(
                status.is_ok_and(|status| status.success()),
                "{model} with {tokens} tokens came to no end"
            );
        }
    }
}

/// `attn_type_list` of a model.
fn layers_of(model: &str) -> Option<Vec<u64>> {
    match model {
        "lightning" => Some(vec![0; 8]),
        "hybrid" => Some(vec![0, 0, 0, 0, 0, 0, 0, 1]),
        _ => None,
    }
}

fn config(layers: &[u64]) -> Value {
    let mut families = tiny_families::configs().into_iter();
    let (_, mut config) = families.find(|(name, _)| *name == "MiniMax-Text-01").expect("it is a family");
    let changes = json!({
        "attn_type_list": layers, "num_hidden_layers": layers.len(), "hidden_size": 32, "intermediate_size": 32,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8, "rotary_dim": 4,
        "max_position_embeddings": 1 << 20
    });
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config
}

fn measure(model: &str, layers: &[u64], tokens: usize) {
    let (dir, config) = (tempfile::tempdir().expect("a folder can be made"), config(layers));
    tiny_mixtral::write(dir.path(), &config, &tiny_families::tensors(&config, 1));
    let takes = inspect(dir.path()).expect("the folder was just written");
    let options =
        EngineOptions { threads: 1, context_length: Some(tokens + DECODED), ..EngineOptions::default() };
    let mut engine = Engine::load(dir.path(), &options, &|_| {}).expect("the folder was just written");

    let prompt = (0..tokens as u32).map(|at| at.wrapping_mul(2_654_435_761) >> 9).map(|x| x % 61).collect();
    engine.submit(Request::new(prompt, DECODED)).expect("it fits");
    let prefill = next_token(&mut engine).as_secs_f64();
    let mut times: Vec<Duration> = (1..DECODED).map(|_| next_token(&mut engine)).collect();
    times.sort_unstable();
    assert!(engine.is_idle());

    let cache = takes.kv_bytes_per_token * (tokens + DECODED) as u64;
    println!(
        "| {model} | {tokens} | {prefill:.2} | {:.0} | {:.3} | {:.0} | {:.0} | {:.0} |",
        tokens as f64 / prefill,
        times[times.len() / 2].as_secs_f64() * 1e3,
        resident(),
        cache as f64 / MIB,
        takes.state_bytes as f64 / 1024.0,
    );
}

/// Steps until a token comes; how long that took.
fn next_token(engine: &mut Engine) -> Duration {
    let (started, mut events) = (Instant::now(), Vec::new());
    while !events.iter().any(|event| matches!(event, Event::Token { .. })) {
        assert!(!engine.is_idle(), "no token came");
        events.clear();
        engine.step(&mut events);
    }
    started.elapsed()
}

/// The most memory that was resident so far, MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
