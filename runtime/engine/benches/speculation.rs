//! What drafts gain and cost: `cargo bench -p coterie-engine --bench speculation`.
//!
//! A random Mixtral with layers of the talking model's sizes, and what it says is dictated by a constraint: so the time
//! of a step is that of a model, and how often guesses come true is the text's own. Times are those of one thread on the
//! CPU, which others on the machine hardly change. Each row is the median of [`RUNS`] rounds with and without drafts, by turns.

#[path = "../tests/tiny_mixtral/mod.rs"]
mod tiny_mixtral;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use coterie_api::launch::Speculate;
use coterie_engine::engine::STEP_TOKENS;
use coterie_engine::{Constraint, Engine, EngineOptions, Event, Request, TokenMask};
use serde_json::json;

const VOCABULARY: u32 = 16_384;
const PROMPT: usize = 512;
const ANSWER: usize = 160;
const RUNS: usize = 3;
const STEPS: usize = 40;

fn main() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let mut config = tiny_mixtral::config();
    let sizes = json!({
        "vocab_size": VOCABULARY, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 4,
        "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "num_local_experts": 8,
        "max_position_embeddings": 2048
    });
    sizes.as_object().expect("an object").iter().for_each(|(key, value)| config[key] = value.clone());
    tiny_mixtral::write(dir.path(), &config, &tiny_mixtral::tensors(&config, 1));
    row_times(dir.path());
    texts(dir.path());
}

fn engine(dir: &Path, speculate: Speculate, step_tokens: usize) -> Engine {
    let options = EngineOptions { speculate, step_tokens, threads: 1, ..EngineOptions::default() };
    Engine::load(dir, &options, &|_| {}).expect("the folder was just written")
}

/// What a step of more rows takes: a chunk of a prompt has as many rows as asked for.
fn row_times(dir: &Path) {
    println!(
        "| rows of a step | ms | beside one row | a row more, in steps of one row |\n|---:|---:|---:|---:|"
    );
    let mut times = Vec::new();
    for rows in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32] {
        let mut engine = engine(dir, Speculate::None, rows);
        let prompt = random(1).take(STEPS * rows + 1).collect();
        engine.submit(Request::new(prompt, 1)).expect("it fits");
        let steps = (0..STEPS).map(|_| {
            let before = on_cpu();
            engine.step(&mut Vec::new());
            (on_cpu() - before) * 1e3
        });
        times.push((rows, median(steps.collect())));
        let ((before, less), (_, one)) = (times[times.len().saturating_sub(2)], times[0]);
        let (_, now) = times[times.len() - 1];
        let more = (now - less) / (rows - before).max(1) as f64 / one;
        println!("| {rows} | {now:.2} | {:.2} | {more:.2} |", now / one);
    }
}

fn texts(dir: &Path) {
    println!();
    println!(
        "| text | requests | tokens/s without | with | gain | drafts | drafted | came | tokens a draft's step |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut engines =
        [Speculate::None, Speculate::Lookup].map(|speculate| engine(dir, speculate, STEP_TOKENS));
    for (name, text) in all() {
        for requests in [1, 4] {
            let before = engines[1].load_now().scheduled;
            let mut speeds = [Vec::new(), Vec::new()];
            for _ in 0..RUNS {
                for (engine, speeds) in engines.iter_mut().zip(&mut speeds) {
                    speeds.push(answer(engine, &text, requests));
                }
            }
            let now = engines[1].load_now().scheduled;
            let [without, with] = speeds.map(median);
            let drafts = (now.drafts - before.drafts) as f64;
            let [drafted, came] =
                [now.draft_tokens - before.draft_tokens, now.accepted_tokens - before.accepted_tokens];
            println!(
                "| {name} | {requests} | {without:.1} | {with:.1} | {:.2} | {drafts} | {drafted} | {came} | {:.2} |",
                with / without,
                1.0 + came as f64 / drafts.max(1.0)
            );
        }
    }
}

/// Tokens a second of `requests` answers at once, from the first token of the last that began.
fn answer(engine: &mut Engine, text: &[u32], requests: usize) -> f64 {
    let text: Arc<[u32]> = text.into();
    for number in 0..requests {
        // Requests are at different places of the text.
        let from = number * 5;
        let prompt = text[from..from + PROMPT].to_vec();
        let dictated: Box<dyn Constraint> = Box::new(Dictated { text: text.clone(), at: from + PROMPT });
        let request = Request { constraint: Some(dictated), ..Request::new(prompt, ANSWER) };
        engine.submit(request).expect("it fits");
    }
    let (mut events, mut begun, mut tokens, mut started) = (Vec::new(), HashSet::new(), 0, None);
    while !engine.is_idle() {
        engine.step(&mut events);
        for event in events.drain(..) {
            if let Event::Token { id, .. } = event {
                begun.insert(id);
                tokens += usize::from(started.is_some());
            }
        }
        if begun.len() == requests {
            started.get_or_insert_with(on_cpu);
        }
    }
    tokens as f64 / (on_cpu() - started.expect("all began"))
}

/// Texts of at least `PROMPT + ANSWER + 15` tokens.
fn all() -> [(&'static str, Vec<u32>); 5] {
    let whole = PROMPT + ANSWER + 15;
    let prose =
        words(concat!(include_str!("../../../README.md"), include_str!("../../../docs/architecture.md")));
    let code = words(include_str!("../src/scheduler.rs"));
    // The prompt's last part comes again, and every 16th token is another.
    let mut quoted = prose[..PROMPT + 15].to_vec();
    let again: Vec<u32> = quoted[PROMPT - ANSWER..].to_vec();
    let changed = again
        .iter()
        .enumerate()
        .map(|(at, token)| if at % 16 == 15 { VOCABULARY - 1 - at as u32 } else { *token });
    quoted.extend(changed);
    quoted.truncate(whole);
    quoted.resize(whole, 0);
    let looped = random(3).take(20).collect::<Vec<_>>().into_iter().cycle().take(whole).collect();
    [
        ("a loop of 20 tokens", looped),
        ("its prompt, one word in 16 changed", quoted),
        ("code (scheduler.rs, words)", code[..whole].to_vec()),
        ("prose (README.md, words)", prose[..whole].to_vec()),
        ("random tokens", random(5).take(whole).collect()),
    ]
}

/// Words, spaces and signs, numbered as they come.
fn words(text: &str) -> Vec<u32> {
    let mut numbers = HashMap::new();
    let kind = |letter: char| (letter.is_alphanumeric() || letter == '_', letter.is_whitespace());
    let letters: Vec<char> = text.chars().collect();
    let pieces = letters.chunk_by(|a, b| kind(*a) == kind(*b) && kind(*a) != (false, false));
    pieces
        .map(|piece| {
            let next = numbers.len() as u32;
            *numbers.entry(piece.to_vec()).or_insert(next)
        })
        .collect()
}

fn random(seed: u64) -> impl Iterator<Item = u32> {
    let mut state = seed;
    std::iter::repeat_with(move || (tiny_mixtral::random(&mut state) * VOCABULARY as f32) as u32)
}

/// Seconds that this thread was computing.
fn on_cpu() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
    let nanoseconds = times.split(' ').next().and_then(|first| first.parse::<f64>().ok());
    nanoseconds.expect("a number comes first") / 1e9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Allows one text and nothing else.
#[derive(Clone, Debug)]
struct Dictated {
    text: Arc<[u32]>,
    at: usize,
}

impl Constraint for Dictated {
    fn allow(&mut self, mask: &mut TokenMask) -> Result<(), String> {
        mask.allow(self.text[self.at]);
        Ok(())
    }

    fn accept(&mut self, _: u32) -> Result<(), String> {
        self.at += 1;
        Ok(())
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}
