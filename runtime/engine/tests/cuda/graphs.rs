//! Steps that are recorded once and repeated: what they ask the device for, and that they give the bits, and draw the tokens,
//! that they give by themselves.

use crate::emulated::emulation::Emulation;
use crate::emulated::graphs::Asked;
use crate::{checks, emulated, tiny_mixtral};
use coterie_engine::backend::cuda::Cuda;
use coterie_engine::moe::host::MakeBackend;
use coterie_engine::{Engine, EngineOptions, Event, Request, TokenLogprobs};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

fn engine(backend: MakeBackend<Cuda<Emulation>>, dir: &Path, context: usize) -> Engine {
    let options = EngineOptions {
        context_length: Some(context),
        threads: 1,
        max_running: 5,
        ..EngineOptions::default()
    };
    let adjust = |limits: &mut coterie_engine::scheduler::Limits| limits.drafts = None;
    Engine::load_on(backend, dir, &options, None, adjust, &|_| {}).unwrap()
}

fn model(config: &serde_json::Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    tiny_mixtral::write(dir.path(), config, &tiny_mixtral::tensors(config, 7));
    dir
}

type Answers = BTreeMap<usize, Vec<(u32, Option<TokenLogprobs>)>>;

/// What comes of requests, as `each` makes the engine's steps.
fn run(
    engine: &mut Engine,
    requests: Vec<Request>,
    mut each: impl FnMut(&mut Engine, &mut Vec<Event>),
) -> Answers {
    let ids: Vec<_> = requests.into_iter().map(|request| engine.submit(request).unwrap()).collect();
    let (mut answers, mut events) = (Answers::new(), Vec::new());
    for _ in 0..100 {
        each(engine, &mut events);
        for event in events.drain(..) {
            if let Event::Token { id, token, logprobs, .. } = event {
                let number = ids.iter().position(|other| *other == id).unwrap();
                answers.entry(number).or_default().push((token, logprobs));
            }
        }
        if engine.is_idle() {
            return answers;
        }
    }
    panic!("the engine never comes to rest");
}

fn requests(count: usize, max_tokens: usize) -> Vec<Request> {
    let samplings = checks::draws::samplings().into_iter().take(count).enumerate();
    let request = |(number, sampling)| {
        let prompt = (0..20 + number as u32).map(|at| (at * 11 + number as u32) % 61).collect();
        Request { sampling, ..Request::new(prompt, max_tokens) }
    };
    samplings.map(request).collect()
}

#[test]
fn a_step_that_decodes_is_one_replay_one_write_and_one_read() {
    let (dir, device) = (model(&tiny_mixtral::config()), Arc::new(Emulation::load(false)));
    let mut engine = engine(emulated::on(device.clone()), dir.path(), 64);
    let mut steps = Vec::new();
    // 5 rows, where there are graphs for 4 and for 8.
    run(&mut engine, requests(5, 12), |engine, events| {
        let before = device.asked();
        engine.step(events);
        let after = device.asked();
        steps.push(Asked {
            launches: after.launches - before.launches,
            replays: after.replays - before.replays,
            reads: after.reads - before.reads,
            writes: after.writes - before.writes,
            allocations: after.allocations - before.allocations,
            captures: after.captures - before.captures,
        });
    });
    let only_replayed = Asked { replays: 1, reads: 1, writes: 1, ..Asked::default() };
    let captures: u64 = steps.iter().map(|step| step.captures).sum();
    assert_eq!(captures, 1, "one size is recorded once: {steps:?}");
    let recorded = steps.iter().find(|step| step.captures > 0).unwrap();
    assert!(recorded.launches > 20 && recorded.replays == 1 && recorded.reads == 1, "{recorded:?}");
    let replayed = steps.iter().filter(|step| **step == only_replayed).count();
    assert_eq!(replayed, 10, "behind the prompts' step and the recorded one: {steps:?}");
    assert!(engine.repeats_steps());
}

#[test]
fn tokens_are_those_that_this_process_draws_from_the_same_logits() {
    checks::draws::as_this_process_draws(&emulated::backend());
}

#[test]
fn long_contexts_and_refused_recordings_give_the_same_bits() {
    let mut config = tiny_mixtral::config();
    config["max_position_embeddings"] = 600.into();
    let dir = model(&config);
    let answers = |backend, repeats| {
        let mut engine = engine(backend, dir.path(), 600);
        let mut requests = requests(3, 5);
        // Chunks of keys: 2, and 3 from the fourth token on.
        for (request, length) in requests.iter_mut().zip([300, 509, 3]) {
            request.prompt = (0..length).map(|at| at * 7 % 61).collect();
            request.top_logprobs = Some(3);
        }
        let answers = run(&mut engine, requests, |engine, events| engine.step(events));
        assert_eq!(engine.repeats_steps(), repeats);
        answers
    };
    let device = Arc::new(Emulation::load(false));
    let with = answers(emulated::on(device.clone()), true);
    assert!(device.asked().captures >= 2 && device.asked().replays >= 4, "{:?}", device.asked());
    assert_eq!(with, answers(emulated::without_graphs(), false));

    let device = Arc::new(Emulation::load(false).without_capture());
    assert_eq!(with, answers(emulated::on(device.clone()), false));
    assert_eq!(device.asked().captures, 1, "it is tried once");
}
