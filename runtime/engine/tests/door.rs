//! The engine's door with a scripted model behind it: what is refused, what is counted, what fails alone.

#![allow(clippy::unwrap_used, clippy::panic)]

use coterie_engine::batch::Batch;
use coterie_engine::model::{Logits, Model};
use coterie_engine::scheduler::Limits;
use coterie_engine::{Engine, Event, Finish, Rejected, Request, RequestId, Sampling};
use std::ops::Range;

/// After token t comes t + 1; after 90 nothing that is a number.
#[derive(Default)]
struct Counting {
    last: Vec<u32>,
    wanted: Range<usize>,
}

impl Model for Counting {
    fn vocabulary(&self) -> usize {
        100
    }

    fn forward(&mut self, batch: &Batch) {
        self.last = batch.logit_rows.iter().map(|row| batch.tokens[*row as usize]).collect();
    }

    fn logits(&mut self, wanted: Range<usize>) -> &dyn Logits {
        self.wanted = wanted;
        self
    }
}

impl Logits for Counting {
    fn vocabulary(&self) -> usize {
        100
    }

    fn argmax(&self, row: usize) -> (u32, f32) {
        let token = self.last[self.wanted.clone()][row];
        (token + 1, if token == 90 { f32::NAN } else { 1.0 })
    }

    fn log_softmax_top(&self, row: usize, token: u32, n: usize) -> (f32, Vec<(u32, f32)>) {
        let best = self.argmax(row).0;
        (if token == best { -0.5 } else { -2.0 }, vec![(best, -0.5); n])
    }

    fn copy_row(&self, _: usize, _: &mut Vec<f32>) {
        panic!("greedy sampling needs no row");
    }
}

fn engine() -> Engine {
    let limits = Limits {
        context: 64,
        blocks: 8,
        step_tokens: 16,
        mixed_prompt_tokens: 16,
        itl: None,
        max_running: 2,
        max_waiting: 3,
        max_waiting_tokens: 100,
        prefix_cache: true,
        states: None,
        drafts: None,
    };
    Engine::new(Box::new(Counting::default()), limits, vec![2])
}

fn request(prompt: &[u32], max_tokens: usize) -> Request {
    Request { stop_tokens: vec![50], ..Request::new(prompt.to_vec(), max_tokens) }
}

fn drain(engine: &mut Engine) -> Vec<Event> {
    let mut events = Vec::new();
    while !engine.is_idle() {
        engine.step(&mut events);
    }
    events
}

#[test]
fn what_cannot_be_done_is_refused_at_the_door() {
    let mut engine = engine();
    assert_eq!(engine.submit(request(&[], 1)), Err(Rejected::EmptyPrompt));
    assert_eq!(engine.submit(request(&[1], 0)), Err(Rejected::NothingToDo));
    let long = Rejected::TooLong { prompt: 60, max_tokens: 5, context: 64 };
    assert_eq!(engine.submit(request(&[1; 60], 5)), Err(long));
    let huge = Rejected::TooLong { prompt: 1, max_tokens: usize::MAX, context: 64 };
    assert_eq!(engine.submit(request(&[1], usize::MAX)), Err(huge));
    let unknown = Rejected::UnknownToken { token: 100, vocabulary: 100 };
    assert_eq!(engine.submit(request(&[1, 100], 1)), Err(unknown.clone()));
    let behind = |generated: &[u32]| Request { generated: generated.to_vec(), ..request(&[1], 2) };
    assert_eq!(engine.submit(behind(&[100])), Err(unknown));
    for generated in [&[3, 4][..], &[50], &[50, 3], &[3, 4, 5]] {
        let over = Rejected::Over { generated: generated.len() };
        assert_eq!(engine.submit(behind(generated)), Err(over));
    }
    for _ in 0..3 {
        engine.submit(request(&[1], 1)).unwrap();
    }
    assert_eq!(engine.submit(request(&[1], 1)), Err(Rejected::QueueFull { waiting: 3, limit: 3 }));
    assert!(!engine.is_idle());
}

#[test]
fn waiting_prompts_are_bounded_together_but_one_may_always_wait() {
    let mut engine = engine();
    let biased = Sampling { logit_bias: vec![(100, 1.0)], ..Sampling::greedy() };
    let unknown = Rejected::UnknownToken { token: 100, vocabulary: 100 };
    assert_eq!(engine.submit(Request { sampling: biased, ..request(&[1], 1) }), Err(unknown));
    engine.submit(request(&[1; 60], 1)).unwrap();
    let full = Rejected::TokensFull { waiting: 60, limit: 100 };
    assert_eq!(engine.submit(request(&[1; 41], 1)), Err(full));
    let behind = |generated: usize| Request { generated: vec![1; generated], ..request(&[1; 30], 20) };
    assert_eq!(engine.submit(behind(11)), Err(Rejected::TokensFull { waiting: 60, limit: 100 }));
    engine.submit(behind(10)).unwrap();
    assert_eq!(engine.load_now().waiting_tokens, 100);
}

#[test]
fn what_was_computed_before_is_told() {
    let mut engine = engine();
    engine.submit(request(&[3; 40], 1)).unwrap();
    drain(&mut engine);
    let id = engine.submit(request(&[3; 36], 1)).unwrap();
    assert_eq!(drain(&mut engine)[0], Event::Started { id, cached_tokens: 32 });
    let scheduled = engine.load_now().scheduled;
    assert_eq!((scheduled.started_tokens, scheduled.cached_tokens, scheduled.prompt_tokens), (76, 32, 44));
}

#[test]
fn tokens_are_told_one_by_one_and_counted() {
    let mut engine = engine();
    let stops = engine.submit(request(&[7, 48], 9)).unwrap();
    let ends = engine.submit(request(&[3], 2)).unwrap();
    let token = |id, token, finish| Event::Token { id, token, logprobs: None, finish };
    let started = |id| Event::Started { id, cached_tokens: 0 };
    let expected = [
        started(stops),
        started(ends),
        token(stops, 49, None),
        token(ends, 4, None),
        token(stops, 50, Some(Finish::Stop)),
        token(ends, 5, Some(Finish::Length)),
    ];
    assert_eq!(drain(&mut engine), expected);
    let load = engine.load_now();
    assert_eq!((load.scheduled.prompt_tokens, load.generated_tokens, load.kv_usage), (3, 4, 0.0));
}

#[test]
fn the_whole_context_can_be_used() {
    let mut engine = engine();
    engine.submit(Request { prompt_logprobs: Some(0), ..request(&[1; 64], 0) }).unwrap();
    engine.submit(request(&[1; 34], 30)).unwrap();
    let events = drain(&mut engine);
    assert!(matches!(&events[..], [.., Event::Token { token: 31, finish: Some(Finish::Length), .. }]));
}

#[test]
fn a_prompt_is_scored_once_before_the_first_token() {
    let mut engine = engine();
    let id = engine.submit(Request { prompt_logprobs: Some(1), ..request(&[5, 6, 9], 1) }).unwrap();
    let events = drain(&mut engine);
    let [_, Event::Prompt { logprobs, finish: None, .. }, Event::Token { token: 10, .. }] = &events[..]
    else {
        panic!("{events:?}");
    };
    let scores: Vec<Option<(u32, f32)>> =
        logprobs.iter().map(|score| score.as_ref().map(|s| (s.token, s.logprob))).collect();
    assert_eq!(scores, [None, Some((6, -0.5)), Some((9, -2.0))]);

    let only = engine.submit(Request { prompt_logprobs: Some(0), ..request(&[5], 0) }).unwrap();
    assert_ne!(only, id);
    let expected = Event::Prompt { id: only, logprobs: vec![None], finish: Some(Finish::Length) };
    assert_eq!(drain(&mut engine), [Event::Started { id: only, cached_tokens: 0 }, expected]);
}

#[test]
fn a_request_without_numbers_fails_alone() {
    let mut engine = engine();
    let broken = engine.submit(request(&[89], 9)).unwrap();
    let whole = engine.submit(request(&[10], 3)).unwrap();
    let events = drain(&mut engine);
    assert!(events.iter().any(|e| matches!(e, Event::Failed { id, .. } if *id == broken)));
    assert!(matches!(&events[..], [.., Event::Token { id, token: 13, finish: Some(_), .. }] if *id == whole));
    assert_eq!(engine.load_now().kv_usage, 0.0);
}

#[test]
fn a_cancelled_request_says_nothing_more() {
    let mut engine = engine();
    let one = engine.submit(request(&[1], 40)).unwrap();
    let two = engine.submit(request(&[60], 3)).unwrap();
    let three = engine.submit(request(&[1], 3)).unwrap();
    let mut events = Vec::new();
    engine.step(&mut events);
    engine.cancel(one);
    engine.cancel(three);
    engine.cancel(RequestId(77));
    events.clear();
    assert_eq!((engine.load_now().running, engine.load_now().waiting), (1, 0));
    events.extend(drain(&mut engine));
    assert!(events.iter().all(|event| matches!(event, Event::Token { id, .. } if *id == two)), "{events:?}");
    assert_eq!(events.len(), 2);
}
