//! Requests that meet in one engine whose room is tight: prompts in chunks beside answers, beginnings that others have computed,
//! guesses, and preemptions.

use coterie_api::launch::Quantization;
use coterie_engine::backend::Backend;
use coterie_engine::moe::host::MakeBackend;
use coterie_engine::scheduler::{Counts, Limits};
use coterie_engine::speculation::{DraftLimits, Worth};
use coterie_engine::state::StateLimits;
use coterie_engine::{Engine, EngineOptions, Event, Request, TokenLogprobs};
use std::collections::BTreeMap;
use std::path::Path;

/// Tokens, and what is told of each.
pub type Answer = Vec<(u32, Option<TokenLogprobs>)>;

/// What is submitted before which step.
pub fn requests() -> Vec<(usize, Request)> {
    let text = |tokens: u32, last: u32| (0..tokens).map(|at| at * 7 % 61).chain([last]).collect::<Vec<u32>>();
    let request = |prompt, max_tokens| Request { top_logprobs: Some(2), ..Request::new(prompt, max_tokens) };
    vec![
        (0, request(text(33, 5), 12)),
        (1, request(text(6, 6), 16)),
        (2, request(text(33, 9), 8)),
        // Repeats itself: guesses come true.
        (3, request([3, 4, 5].repeat(5), 12)),
        (6, request(text(20, 2), 5)),
    ]
}

/// An engine with little room, and limits as `adjust` leaves them.
pub fn engine<B>(
    backend: &MakeBackend<B>,
    dir: &Path,
    quantization: Quantization,
    adjust: impl FnOnce(&mut Limits),
) -> Engine
where
    B: Backend + 'static,
    B::Rope: Clone,
{
    let options = EngineOptions {
        quantization,
        context_length: Some(64),
        threads: 1,
        max_running: 4,
        ..EngineOptions::default()
    };
    let loaded = Engine::load_on(backend.clone(), dir, &options, None, adjust, &|_| {});
    loaded.unwrap_or_else(|why| panic!("{}: {why}", dir.display()))
}

/// All of them in one engine.
pub fn together<B>(
    backend: &MakeBackend<B>,
    dir: &Path,
    quantization: Quantization,
    module: bool,
) -> (Vec<Answer>, Counts)
where
    B: Backend + 'static,
    B::Rope: Clone,
{
    let mut engine = engine(backend, dir, quantization, |limits| {
        limits.blocks = 5;
        limits.step_tokens = 21;
        limits.mixed_prompt_tokens = 11;
        limits.states = limits.states.map(|_| StateLimits { snapshots: 6, every: 1 });
        let worth = Worth { first: 0.0, further: 0.0 };
        limits.drafts = Some(DraftLimits { module, tokens: 3, rows: 8, worth });
    });
    let requests = requests();
    let answers = play(&mut engine, &requests);
    let counts = engine.load_now().scheduled;
    (answers, counts)
}

/// Each in an engine of its own that has room, and guesses nothing.
pub fn alone<B>(backend: &MakeBackend<B>, dir: &Path, quantization: Quantization) -> Vec<Answer>
where
    B: Backend + 'static,
    B::Rope: Clone,
{
    let of = |(_, request): (usize, Request)| {
        let mut engine = engine(backend, dir, quantization, |limits| limits.drafts = None);
        play(&mut engine, &[(0, request)]).remove(0)
    };
    requests().into_iter().map(of).collect()
}

/// What comes of requests, each submitted before its step.
pub fn play(engine: &mut Engine, requests: &[(usize, Request)]) -> Vec<Answer> {
    let (mut ids, mut events) = (BTreeMap::new(), Vec::new());
    let mut answers = vec![Answer::new(); requests.len()];
    for step in 0..500 {
        for (number, (_, request)) in requests.iter().enumerate().filter(|(_, (at, _))| *at == step) {
            ids.insert(engine.submit(request.clone()).expect("it may run"), number);
        }
        engine.step(&mut events);
        for event in events.drain(..) {
            match event {
                Event::Token { id, token, logprobs, .. } => answers[ids[&id]].push((token, logprobs)),
                Event::Started { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        if ids.len() == requests.len() && engine.is_idle() {
            return answers;
        }
    }
    panic!("the engine never comes to rest");
}
