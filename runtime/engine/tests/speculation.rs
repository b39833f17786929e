//! Speculative decoding: what it changes (the number of steps), what it does not (any token, any distribution), and when
//! it stops.

#![allow(clippy::unwrap_used, clippy::panic)]

mod tiny_mixtral;

use coterie_engine::batch::Batch;
use coterie_engine::engine::DRAFTS;
use coterie_engine::model::{Logits, Model};
use coterie_engine::scheduler::Limits;
use coterie_engine::simple::Simple;
use coterie_engine::speculation::{DraftLimits, Worth};
use coterie_engine::{Counts, Engine, EngineOptions, Event, Request, RequestId, Sampling};
use std::collections::BTreeMap;
use std::ops::Range;

const VOCABULARY: u32 = 50;

/// A model that says a text whatever it is asked.
struct Script {
    text: Vec<u32>,
    next: Vec<u32>,
    wanted: Range<usize>,
}

impl Model for Script {
    fn vocabulary(&self) -> usize {
        VOCABULARY as usize
    }

    fn forward(&mut self, batch: &Batch) {
        let after = |row: &u32| self.text[batch.positions[*row as usize] as usize + 1];
        self.next = batch.logit_rows.iter().map(after).collect();
    }

    fn logits(&mut self, wanted: Range<usize>) -> &dyn Logits {
        self.wanted = wanted;
        self
    }
}

impl Logits for Script {
    fn vocabulary(&self) -> usize {
        VOCABULARY as usize
    }

    fn argmax(&self, row: usize) -> (u32, f32) {
        (self.next[self.wanted.clone()][row], 1.0)
    }

    fn log_softmax_top(&self, _: usize, _: u32, _: usize) -> (f32, Vec<(u32, f32)>) {
        unreachable!("no log probabilities are asked for")
    }

    fn copy_row(&self, _: usize, _: &mut Vec<f32>) {
        unreachable!("greedy sampling needs no row")
    }
}

const LIMITS: Limits = Limits {
    context: 4000,
    blocks: 1000,
    step_tokens: 64,
    mixed_prompt_tokens: 64,
    itl: None,
    max_running: 40,
    max_waiting: 99,
    max_waiting_tokens: usize::MAX,
    prefix_cache: true,
    states: None,
    drafts: Some(DRAFTS),
};

fn script(text: &[u32], limits: Limits) -> Engine {
    let script = Script { text: text.to_vec(), next: Vec::new(), wanted: 0..0 };
    Engine::new(Box::new(script), limits, Vec::new())
}

/// A text of so many repetitions of `words`.
fn looped(words: &[u32], times: usize) -> Vec<u32> {
    words.repeat(times)
}

/// Steps to the end, telling after each what was counted so far, and what the step generated.
fn steps(engine: &mut Engine) -> Vec<(Counts, usize)> {
    let mut all = Vec::new();
    while !engine.is_idle() {
        let mut events = Vec::new();
        engine.step(&mut events);
        let tokens = events.iter().filter(|event| matches!(event, Event::Token { .. })).count();
        all.push((engine.load_now().scheduled, tokens));
        assert!(all.len() < 5000, "the engine never comes to rest");
    }
    all
}

#[test]
fn a_text_that_repeats_itself_takes_fewer_steps() {
    let text = looped(&[3, 1, 4, 1, 5, 9, 2, 6], 60);
    let said = |drafts| {
        let mut engine = script(&text, Limits { drafts, ..LIMITS });
        engine.submit(Request::new(text[..20].to_vec(), 400)).unwrap();
        steps(&mut engine)
    };
    let (without, with) = (said(None), said(Some(DRAFTS)));
    let generated = |steps: &[(Counts, usize)]| steps.iter().map(|(_, tokens)| tokens).sum::<usize>();
    assert_eq!((generated(&without), generated(&with)), (400, 400));
    assert_eq!((without.len(), without.last().unwrap().0.drafts), (400, 0));
    let (counts, _) = with.last().unwrap();
    assert!(with.len() < 50, "{} steps", with.len());
    assert_eq!(counts.draft_tokens, counts.accepted_tokens, "nothing was wrong");
    assert_eq!(counts.accepted_tokens as usize, 400 - with.len());
}

#[test]
fn where_guesses_are_wrong_drafts_stop_and_come_back_when_they_are_right() {
    // Pairs come again, but what is behind them is another token each time.
    let pairs = (0..600u32).flat_map(|at| [1, 2, 3 + at * 17 % 47]);
    let text: Vec<u32> = pairs.chain(looped(&[7, 8, 9, 10, 11], 100)).collect();
    let mut engine = script(&text, LIMITS);
    engine.submit(Request::new(text[..3].to_vec(), text.len() - 4)).unwrap();
    let (mut so_far, mut wrong, mut late) = (3, Counts::default(), 0);
    for (counts, tokens) in steps(&mut engine) {
        so_far += tokens;
        if so_far < 1800 {
            wrong = counts;
        } else if so_far < 1830 {
            late = counts.drafts;
        }
    }
    let whole = engine.load_now().scheduled;
    assert!(wrong.draft_tokens - wrong.accepted_tokens < 60, "{wrong:?}: of 600 that were wrong");
    assert!(late > wrong.drafts, "a few right ones are enough to begin again: {late}");
    assert!(whole.accepted_tokens - wrong.accepted_tokens > 420, "{whole:?}");
}

#[test]
fn a_full_batch_and_the_prompts_in_it_leave_drafts_what_is_over() {
    let text = looped(&[3, 1, 4, 1, 5, 9, 2, 6], 60);
    let free = DraftLimits { module: false, tokens: 6, rows: 10, worth: Worth { first: 0.0, further: 0.0 } };
    for (running, each) in [(1, 6), (2, 4), (5, 1), (9, 0), (20, 0)] {
        let mut engine = script(&text, Limits { drafts: Some(free), ..LIMITS });
        for _ in 0..running {
            engine.submit(Request::new(text[..20].to_vec(), 60)).unwrap();
        }
        while engine.load_now().generated_tokens < running {
            engine.step(&mut Vec::new());
        }
        engine.step(&mut Vec::new());
        let counts = engine.load_now().scheduled;
        assert!(counts.draft_tokens >= running * each, "{running} running: {counts:?}");
        assert!(counts.draft_tokens + running <= 10.max(running), "{running} running: {counts:?}");
    }
    // A prompt that takes all rows of the steps that follow.
    let mut engine = script(&text, Limits { step_tokens: 24, drafts: Some(free), ..LIMITS });
    engine.submit(Request::new(text[..20].to_vec(), 60)).unwrap();
    engine.step(&mut Vec::new());
    engine.submit(Request::new(text[..23 * 3].to_vec(), 1)).unwrap();
    // What they have in common is in the cache.
    (0..2).for_each(|_| engine.step(&mut Vec::new()));
    assert_eq!(engine.load_now().scheduled.draft_tokens, 0);
    (0..2).for_each(|_| engine.step(&mut Vec::new()));
    assert!(engine.load_now().scheduled.draft_tokens > 0);
}

#[test]
fn no_block_is_taken_for_a_draft_that_somebody_needs() {
    let text = looped(&[3, 1, 4, 1], 60);
    let free = DraftLimits { module: false, tokens: 15, rows: 99, worth: Worth { first: 0.0, further: 0.0 } };
    // Both need all six blocks in the end, so neither gives way.
    let limits = Limits { context: 96, blocks: 6, drafts: Some(free), prefix_cache: false, ..LIMITS };
    let mut engine = script(&text, limits);
    for _ in 0..2 {
        engine.submit(Request::new(text[..20].to_vec(), 28)).unwrap();
    }
    let last = steps(&mut engine).last().unwrap().0;
    assert_eq!(last.preemptions, 0);
    assert!(last.accepted_tokens > 30, "{last:?}");
    assert_eq!(engine.load_now().kv_usage, 0.0);
}

#[test]
fn what_was_drafted_and_did_not_come_is_in_no_cache() {
    // Token 16 on is guessed wrongly, and the guess would fill the block from 32 on.
    let text: Vec<u32> = [looped(&[1, 2, 3, 4], 5), (20..44).collect(), looped(&[30], 40)].concat();
    let free = DraftLimits { module: false, tokens: 15, rows: 99, worth: Worth { first: 0.0, further: 0.0 } };
    let mut engine = script(&text, Limits { drafts: Some(free), ..LIMITS });
    engine.submit(Request::new(text[..18].to_vec(), 40)).unwrap();
    let counts = steps(&mut engine).last().unwrap().0;
    assert!(counts.draft_tokens > counts.accepted_tokens, "{counts:?}");
    let cached = |engine: &mut Engine, prompt: Vec<u32>| {
        engine.submit(Request::new(prompt, 1)).unwrap();
        let mut events = Vec::new();
        while !engine.is_idle() {
            engine.step(&mut events);
        }
        let started = events.iter().find_map(|event| match event {
            Event::Started { cached_tokens, .. } => Some(*cached_tokens),
            _ => None,
        });
        started.unwrap()
    };
    assert_eq!(cached(&mut engine, looped(&[1, 2, 3, 4], 12)), 16, "the guess is not text");
    assert_eq!(cached(&mut engine, text[..58].to_vec()), 48, "the answer is");
}

const TINY: u32 = 6;

/// Answers of [`ANSWER`] tokens to one prompt, one a seed, counted.
const ANSWER: usize = 4;

/// χ² of what was counted against probabilities, in standard deviations from its mean. Answers of which fewer than five
/// are expected count as one.
fn deviation(counted: &BTreeMap<Vec<u32>, usize>, probabilities: &BTreeMap<Vec<u32>, f64>) -> f64 {
    let draws = counted.values().sum::<usize>() as f64;
    let (mut rare, mut chi, mut cells) = ((0.0, 0.0), 0.0, 0.0);
    let mut add = |seen: f64, expected: f64| {
        chi += (seen - expected).powi(2) / expected;
        cells += 1.0;
    };
    for (answer, probability) in probabilities {
        let (seen, expected) = (counted.get(answer).copied().unwrap_or_default() as f64, probability * draws);
        if expected < 5.0 {
            rare = (rare.0 + seen, rare.1 + expected);
        } else {
            add(seen, expected);
        }
    }
    add(rare.0, rare.1);
    let freedom = cells - 1.0;
    (chi - freedom) / (2.0 * freedom).sqrt()
}

/// The probability of every answer at a temperature, by the slow loop.
fn distribution(simple: &Simple, prompt: &[u32], temperature: f32) -> BTreeMap<Vec<u32>, f64> {
    let mut answers = BTreeMap::from([(Vec::new(), 1.0f64)]);
    for _ in 0..ANSWER {
        let longer = answers.iter().flat_map(|(answer, probability)| {
            let logits = simple.logits(&[prompt, answer].concat()).0.pop().unwrap();
            let weights = logits.iter().map(|logit| f64::from(logit / temperature).exp());
            let weights: Vec<f64> = weights.collect();
            let sum: f64 = weights.iter().sum();
            let next = |token: u32| [&answer[..], &[token]].concat();
            let of = |token: u32| (next(token), probability * weights[token as usize] / sum);
            (0..TINY).map(of).collect::<Vec<_>>()
        });
        answers = longer.collect();
    }
    answers
}

#[test]
fn sampled_answers_have_the_models_distribution() {
    let mut config = tiny_mixtral::config();
    config["vocab_size"] = TINY.into();
    let dir = tempfile::tempdir().unwrap();
    tiny_mixtral::write(dir.path(), &config, &tiny_mixtral::tensors(&config, 4));
    let free = DraftLimits { module: false, tokens: 3, rows: 99, worth: Worth { first: 0.0, further: 0.0 } };
    let options = EngineOptions { threads: 1, max_running: 12, ..EngineOptions::default() };
    let adjust = |limits: &mut Limits| limits.drafts = Some(free);
    let mut engine = Engine::load_with(dir.path(), &options, None, adjust, &|_| {}).unwrap();

    // Every pair is somewhere in it, so that everything is guessed behind.
    let prompt: Vec<u32> = (0..TINY).flat_map(|a| (0..TINY).flat_map(move |b| [a, b])).collect();
    let temperature = 2.0;
    let (mut answers, mut events) = (BTreeMap::<RequestId, Vec<u32>>::new(), Vec::new());
    let draws = 12_000;
    for seed in 0..draws {
        let sampling = Sampling { temperature, seed, ..Sampling::greedy() };
        engine.submit(Request { sampling, ..Request::new(prompt.clone(), ANSWER) }).unwrap();
        while engine.load_now().waiting > 20 || (seed + 1 == draws && !engine.is_idle()) {
            engine.step(&mut events);
        }
        for event in events.drain(..) {
            if let Event::Token { id, token, .. } = event {
                answers.entry(id).or_default().push(token);
            }
        }
    }
    let Counts { draft_tokens, accepted_tokens, .. } = engine.load_now().scheduled;
    let wrong = draft_tokens - accepted_tokens;
    assert!(accepted_tokens > draws / 10 && wrong > draws / 10, "{accepted_tokens} of {draft_tokens}");
    let mut counted = BTreeMap::new();
    answers.into_values().for_each(|answer| *counted.entry(answer).or_default() += 1);
    assert_eq!(counted.values().sum::<usize>(), draws as usize);

    let simple = Simple::load(dir.path()).unwrap();
    let right = deviation(&counted, &distribution(&simple, &prompt, temperature));
    let other = deviation(&counted, &distribution(&simple, &prompt, temperature * 0.7));
    println!(
        "{right:.2} and {other:.2} standard deviations; {accepted_tokens} of {draft_tokens} drafted tokens came"
    );
    assert!(right.abs() < 4.0, "{right} standard deviations");
    assert!(other > 8.0, "the test would not notice another temperature: {other}");
}
