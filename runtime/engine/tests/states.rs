//! Slots and snapshots of running states, by a model that can tell: its state is the tokens that it has seen, its next
//! token a hash of them, and it notices whoever is given a state that is not his.

#![allow(clippy::unwrap_used, clippy::panic)]

use coterie_engine::batch::Batch;
use coterie_engine::block_pool::BLOCK_SIZE;
use coterie_engine::model::{Logits, Model};
use coterie_engine::scheduler::Limits;
use coterie_engine::speculation::{DraftLimits, Worth};
use coterie_engine::state::{Origin, StateLimits};
use coterie_engine::{Engine, Event, Request, RequestId, inspect};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const VOCABULARY: u32 = 50;
const CONTEXT: usize = 112;

/// What was seen in all scenes: the test must not be about nothing.
static CACHED: AtomicU64 = AtomicU64::new(0);
static PREEMPTIONS: AtomicU64 = AtomicU64::new(0);
static DRAFTED: AtomicU64 = AtomicU64::new(0);
static ACCEPTED: AtomicU64 = AtomicU64::new(0);

/// A model with a running state beside its cache, both of which are the tokens themselves.
struct Witness {
    /// By place in the cache.
    cache: Vec<Option<u32>>,
    /// By slot.
    states: Vec<Option<Vec<u32>>>,
    snapshots: Vec<Option<Vec<u32>>>,
    /// What follows each wanted row.
    next: Vec<u32>,
    wanted: Range<usize>,
}

impl Witness {
    fn new(limits: &Limits) -> Witness {
        let states = limits.states.unwrap();
        Witness {
            cache: vec![None; limits.blocks * BLOCK_SIZE],
            states: vec![None; limits.max_running],
            snapshots: vec![None; states.snapshots],
            next: Vec::new(),
            wanted: 0..0,
        }
    }
}

/// Mostly what was said five tokens ago, so that drafts come true as well as not; else a hash of all.
fn next_of(tokens: &[u32]) -> u32 {
    let hash = tokens.iter().fold(17u64, |hash, token| {
        (hash ^ u64::from(*token)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23)
    });
    match tokens.len().checked_sub(5) {
        Some(before) if hash % 8 > 0 => tokens[before],
        _ => (hash >> 33) as u32 % VOCABULARY,
    }
}

impl Model for Witness {
    fn vocabulary(&self) -> usize {
        VOCABULARY as usize
    }

    fn forward(&mut self, batch: &Batch) {
        self.next.clear();
        let mut slots = BTreeSet::new();
        for sequence in &batch.sequences {
            let rows = sequence.state.as_ref().expect("a sequence has a state");
            let before = sequence.context - sequence.rows.len();
            assert!(slots.insert(rows.slot), "two sequences have slot {}", rows.slot);
            let mut state = match rows.origin {
                Origin::Zero => Vec::new(),
                Origin::Snapshot(from) => self.snapshots[from as usize].clone().expect("it was saved"),
                Origin::Slot => {
                    let mut state = self.states[rows.slot as usize].take().expect("rows were before");
                    // A full block is folded into the sum when the next begins.
                    let folded = (state.len() - 1) / BLOCK_SIZE * BLOCK_SIZE;
                    assert!(folded <= before, "{before} tokens, but {folded} are folded");
                    state.truncate(before);
                    state
                }
            };
            assert_eq!(state.len(), before, "{:?}: a state of other tokens", rows.origin);
            let mut saves = batch.saves[rows.saves.clone()].iter().peekable();
            for row in sequence.rows.clone() {
                state.push(batch.tokens[row]);
                self.cache[batch.slots[row] as usize] = Some(batch.tokens[row]);
                if let Some(save) = saves.next_if(|save| save.tokens == state.len()) {
                    self.snapshots[save.snapshot as usize] = Some(state.clone());
                }
                if batch.logit_rows.contains(&(row as u32)) {
                    self.next.push(next_of(&state));
                }
            }
            assert_eq!(saves.next(), None, "a snapshot of rows that are not there");
            let table = &batch.tables[sequence.table.clone()];
            let cached =
                |at: usize| self.cache[table[at / BLOCK_SIZE] as usize * BLOCK_SIZE + at % BLOCK_SIZE];
            assert!(
                (0..state.len()).all(|at| cached(at) == Some(state[at])),
                "cache and state are of one text"
            );
            self.states[rows.slot as usize] = Some(state);
        }
    }

    fn logits(&mut self, wanted: Range<usize>) -> &dyn Logits {
        self.wanted = wanted;
        self
    }
}

impl Logits for Witness {
    fn vocabulary(&self) -> usize {
        VOCABULARY as usize
    }

    fn argmax(&self, row: usize) -> (u32, f32) {
        (self.next[self.wanted.clone()][row], 1.0)
    }

    fn log_softmax_top(&self, _: usize, token: u32, _: usize) -> (f32, Vec<(u32, f32)>) {
        (token as f32, Vec::new())
    }

    fn copy_row(&self, _: usize, _: &mut Vec<f32>) {
        unreachable!("greedy sampling needs no row")
    }
}

const LIMITS: Limits = Limits {
    context: CONTEXT,
    blocks: 20,
    step_tokens: 64,
    mixed_prompt_tokens: 64,
    itl: None,
    max_running: 4,
    max_waiting: 99,
    max_waiting_tokens: usize::MAX,
    prefix_cache: true,
    states: Some(StateLimits { snapshots: 8, every: 2 }),
    drafts: None,
};

fn engine(limits: Limits) -> Engine {
    Engine::new(Box::new(Witness::new(&limits)), limits, Vec::new())
}

fn expected(request: &Request) -> Vec<u32> {
    let mut tokens = request.prompt.clone();
    for _ in 0..request.max_tokens {
        tokens.push(next_of(&tokens));
    }
    tokens.split_off(request.prompt.len())
}

/// Runs until nothing is left; the tokens of each request.
fn finish(engine: &mut Engine) -> BTreeMap<RequestId, Vec<u32>> {
    let (mut events, mut answers) = (Vec::new(), BTreeMap::<_, Vec<u32>>::new());
    for _ in 0..5000 {
        engine.step(&mut events);
        if engine.is_idle() {
            break;
        }
    }
    assert!(engine.is_idle(), "the engine never comes to rest");
    for event in events {
        if let Event::Token { id, token, .. } = event {
            answers.entry(id).or_default().push(token);
        }
    }
    answers
}

/// Answers a request alone; how many tokens of its prompt were in the cache.
fn answer(engine: &mut Engine, prompt: &[u32], max_tokens: usize) -> usize {
    let before = engine.load_now().scheduled.cached_tokens;
    let request = Request::new(prompt.to_vec(), max_tokens);
    let id = engine.submit(request.clone()).unwrap();
    assert_eq!(finish(engine)[&id], expected(&request));
    (engine.load_now().scheduled.cached_tokens - before) as usize
}

fn text(tokens: usize) -> Vec<u32> {
    (0..tokens as u32).map(|at| at * 7 % VOCABULARY).collect()
}

#[test]
fn a_hit_ends_where_there_is_a_snapshot() {
    let mut engine = engine(LIMITS);
    // Snapshots behind 2 and 4 blocks, and behind 5, the last from which the same prompt could go on.
    assert_eq!(answer(&mut engine, &text(85), 1), 0);
    let with = |shared: usize| [text(shared), vec![49; 20]].concat();
    assert_eq!(answer(&mut engine, &text(85), 2), 80);
    assert_eq!(answer(&mut engine, &with(79), 1), 64);
    assert_eq!(answer(&mut engine, &with(63), 1), 32);
    assert_eq!(answer(&mut engine, &with(31), 1), 0);
    // Three blocks were there already; the one before them has left a snapshot behind its own four.
    assert_eq!(answer(&mut engine, &with(63), 1), 80);
}

#[test]
fn hits_at_every_boundary() {
    let states = Some(StateLimits { snapshots: 40, every: 1 });
    for step_tokens in [3, 16, 21, 64] {
        let mut engine = engine(Limits { step_tokens, states, ..LIMITS });
        assert_eq!(answer(&mut engine, &text(100), 1), 0);
        for shared in 1..=100 {
            let prompt = [text(shared), vec![shared as u32 % 50]].concat();
            assert!(
                answer(&mut engine, &prompt, 2) >= shared / 16 * 16,
                "{shared} tokens, steps of {step_tokens}"
            );
        }
    }
}

#[test]
fn one_begins_from_what_another_saves_in_the_same_step() {
    let mut engine = engine(LIMITS);
    let ids: Vec<RequestId> = (0..3).map(|_| engine.submit(Request::new(text(40), 3)).unwrap()).collect();
    let mut events = Vec::new();
    engine.step(&mut events);
    let tokens = events.iter().filter(|event| matches!(event, Event::Token { .. })).count();
    assert_eq!((tokens, engine.load_now().scheduled.cached_tokens), (3, 64));
    let answers = finish(&mut engine);
    assert!(ids.iter().all(|id| answers[id] == expected(&Request::new(text(40), 3))[1..]));
}

#[test]
fn a_snapshot_goes_alone_and_its_blocks_are_of_use_to_the_next() {
    let mut engine = engine(Limits { states: Some(StateLimits { snapshots: 1, every: 9 }), ..LIMITS });
    assert_eq!(answer(&mut engine, &text(70), 1), 0);
    assert_eq!(answer(&mut engine, &text(70), 1), 64);
    assert_eq!(answer(&mut engine, &[3; 20], 1), 0);
    assert_eq!(answer(&mut engine, &text(70), 1), 0, "the only snapshot is another's");
    assert_eq!(answer(&mut engine, &text(70), 1), 64);
}

#[test]
fn without_snapshots_and_without_the_prefix_cache_nothing_is_shared() {
    let none = Some(StateLimits { snapshots: 0, every: 1 });
    for limits in [Limits { states: none, ..LIMITS }, Limits { prefix_cache: false, ..LIMITS }] {
        let mut engine = engine(limits);
        assert_eq!([0; 3].map(|_| answer(&mut engine, &text(60), 3)), [0; 3]);
    }
}

#[test]
fn inspect_tells_the_state_of_one_sequence() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/minimax_text/released");
    let inspection = inspect(&dir).unwrap();
    // 3 layers of 6 heads: a sum of 10 × 10, keys and values of a block. One layer with keys and values of 2 heads.
    assert_eq!(inspection.state_bytes, 3 * 6 * (10 * 10 + 2 * 16 * 10) * 4);
    assert_eq!(inspection.kv_bytes_per_token, 2 * 2 * 10 * 4);
}

#[derive(Clone, Debug)]
struct Arrival {
    prompt: Vec<u32>,
    max_tokens: usize,
    scored: bool,
    priority: u8,
    step: usize,
    cancel: Option<usize>,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let fresh = prop::collection::vec(0..VOCABULARY, 1..60);
    let shared = (1usize..70, prop::collection::vec(0..3u32, 0..20))
        .prop_map(|(shared, own)| [text(shared), own].concat());
    let prompt = prop_oneof![1 => fresh, 3 => shared];
    let cancel = prop_oneof![3 => Just(None), 1 => (0usize..20).prop_map(Some)];
    (prompt, 1usize..40, prop::bool::weighted(0.1), 0u8..3, 0usize..25, cancel).prop_map(
        |(prompt, max_tokens, scored, priority, step, cancel)| Arrival {
            max_tokens: max_tokens.min(CONTEXT - prompt.len()),
            prompt,
            scored,
            priority,
            step,
            cancel,
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    let states = (0usize..5, 1usize..4).prop_map(|(snapshots, every)| StateLimits { snapshots, every });
    let drafts =
        (1usize..9, 1usize..20, prop_oneof![Just(0.0f32), Just(0.4)]).prop_map(|(tokens, rows, first)| {
            DraftLimits { module: false, tokens, rows, worth: Worth { first, further: first / 2.0 } }
        });
    let drafts = prop::option::of(drafts);
    (7usize..14, 1usize..50, 1usize..50, 1usize..6, states, drafts).prop_map(
        |(blocks, step_tokens, mixed_prompt_tokens, max_running, states, drafts)| Limits {
            blocks,
            step_tokens,
            mixed_prompt_tokens,
            itl: None,
            max_running,
            states: Some(states),
            drafts,
            ..LIMITS
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]

    fn every_state_is_its_own_texts(arrivals in prop::collection::vec(arrival(), 1..9), limits in limits()) {
        let mut engine = engine(limits);
        let (mut ids, mut events) = (BTreeMap::new(), Vec::new());
        for step in 0.. {
            for (number, arrival) in arrivals.iter().enumerate() {
                if arrival.step == step {
                    let request = Request {
                        priority: arrival.priority,
                        prompt_logprobs: arrival.scored.then_some(0),
                        ..Request::new(arrival.prompt.clone(), arrival.max_tokens)
                    };
                    ids.insert(number, (engine.submit(request.clone()).unwrap(), expected(&request)));
                }
                if arrival.cancel.is_some_and(|after| arrival.step + after == step)
                    && let Some((id, _)) = ids.get(&number)
                {
                    engine.cancel(*id);
                }
            }
            engine.step(&mut events);
            let all_came = arrivals.iter().all(|a| a.step + a.cancel.unwrap_or(0) <= step);
            if all_came && engine.is_idle() {
                break;
            }
            prop_assert!(step < 5000, "the engine never comes to rest");
        }
        for (number, (id, expected)) in ids {
            let said = events.iter().filter_map(|event| match event {
                Event::Token { id: of, token, .. } if *of == id => Some(*token),
                _ => None,
            });
            let said: Vec<u32> = said.collect();
            let whole = arrivals[number].cancel.is_none();
            prop_assert!(expected.starts_with(&said));
            prop_assert!(!whole || said.len() == expected.len(), "an answer breaks off");
        }
        let load = engine.load_now();
        prop_assert_eq!(load.kv_usage, 0.0, "a block leaked");
        CACHED.fetch_add(load.scheduled.cached_tokens, Ordering::Relaxed);
        PREEMPTIONS.fetch_add(load.scheduled.preemptions, Ordering::Relaxed);
        DRAFTED.fetch_add(load.scheduled.draft_tokens, Ordering::Relaxed);
        ACCEPTED.fetch_add(load.scheduled.accepted_tokens, Ordering::Relaxed);
    }
}

#[test]
fn in_any_company_everybody_has_the_state_of_his_own_text() {
    every_state_is_its_own_texts();
    assert!(CACHED.load(Ordering::Relaxed) > 10_000, "too little in common: {CACHED:?}");
    assert!(PREEMPTIONS.load(Ordering::Relaxed) > 500, "too easy: {PREEMPTIONS:?}");
    let (drafted, accepted) = (DRAFTED.load(Ordering::Relaxed), ACCEPTED.load(Ordering::Relaxed));
    assert!(accepted > 10_000 && drafted - accepted > 10_000, "too easy: {accepted} of {drafted} came");
}
