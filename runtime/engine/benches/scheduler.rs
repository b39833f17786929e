//! What a step costs beside the model: `cargo bench -p coterie-engine --bench scheduler`.
//!
//! The model behind the engine answers at once, so what is timed is schedule, sample and emit, with the prefix cache
//! on. All prompts differ in their last 100 tokens. "Mixed" is the same while a new prompt of 2000 tokens is always
//! being prefilled beside, so that each step has all the rows it may have.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coterie_engine::batch::Batch;
use coterie_engine::block_pool::blocks_for;
use coterie_engine::engine::{DRAFTS, STEP_TOKENS};
use coterie_engine::model::{Logits, Model};
use coterie_engine::scheduler::Limits;
use coterie_engine::{Engine, Event, Request};

/// Steps that are timed.
const STEPS: usize = 1000;
/// Tokens that a request may generate before the last of them has its first.
const BEFORE: usize = 400;
const OWN_TOKENS: usize = 100;
const LONG_PROMPT: usize = 2000;
const VOCABULARY: usize = 50_000;

fn main() {
    println!(
        "{:>8} {:>8} {:>6} {:>12} {:>12} {:>12}",
        "running", "context", "mixed", "median", "p99", "allocations"
    );
    for running in [1, 16, 64, 256] {
        for context in [100, 2000] {
            for mixed in [false, true] {
                let (mut times, allocated) = measure(running, context, mixed);
                times.sort_unstable();
                let micros = |percent: usize| times[(STEPS - 1) * percent / 100].as_nanos() as f64 / 1e3;
                let (median, p99, each) = (micros(50), micros(99), allocated as f64 / STEPS as f64);
                println!("{running:>8} {context:>8} {mixed:>6} {median:>9.1} µs {p99:>9.1} µs {each:>12.2}");
            }
        }
    }
}

/// The times of [`STEPS`] steps while `running` requests decode behind `context` tokens or some more, and how often
/// memory was allocated in them.
fn measure(running: usize, context: usize, mixed: bool) -> (Vec<Duration>, u64) {
    let answer = BEFORE + STEPS + 1;
    let limits = Limits {
        context: (context + answer).max(LONG_PROMPT + 1),
        blocks: running * blocks_for(context + answer) + 2 * blocks_for(LONG_PROMPT + 1),
        step_tokens: STEP_TOKENS,
        mixed_prompt_tokens: STEP_TOKENS,
        itl: None,
        max_running: running + 1,
        max_waiting: running,
        max_waiting_tokens: usize::MAX,
        prefix_cache: true,
        states: None,
        drafts: Some(DRAFTS),
    };
    let mut engine = Engine::new(Box::new(Free::default()), limits, Vec::new());
    for number in 0..running {
        let prompt = prompt(number, context, OWN_TOKENS);
        engine.submit(Request::new(prompt, answer)).expect("there is room for all");
    }
    let mut events = Vec::new();
    while tokens(&events) < running {
        events.clear();
        engine.step(&mut events);
    }
    let (mut times, mut allocated, mut long) = (Vec::with_capacity(STEPS), 0, running);
    for _ in 0..STEPS {
        let load = engine.load_now();
        if mixed && load.running + load.waiting == running {
            long += 1;
            let request = Request::new(prompt(long, LONG_PROMPT, LONG_PROMPT), 1);
            engine.submit(request).expect("there is room for one more");
        }
        events.clear();
        let (started, before) = (Instant::now(), ALLOCATIONS.load(Ordering::Relaxed));
        engine.step(&mut events);
        times.push(started.elapsed());
        allocated += ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert!(tokens(&events) >= running, "everybody has a token of every step");
    }
    (times, allocated)
}

fn tokens(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Token { .. })).count()
}

/// `tokens` tokens, the last `own` of which depend on `number`.
fn prompt(number: usize, tokens: usize, own: usize) -> Vec<u32> {
    let mixed = |at: usize| {
        let of = if at + own < tokens { 0 } else { number + 1 };
        (of * 7919 + at * 31) % VOCABULARY
    };
    (0..tokens).map(|at| mixed(at) as u32).collect()
}

/// A model that computes nothing: after token t comes t + 1.
#[derive(Default)]
struct Free {
    last: Vec<u32>,
    wanted: Range<usize>,
}

impl Model for Free {
    fn vocabulary(&self) -> usize {
        VOCABULARY
    }

    fn forward(&mut self, batch: &Batch) {
        self.last.clear();
        self.last.extend(batch.logit_rows.iter().map(|row| batch.tokens[*row as usize]));
    }

    fn logits(&mut self, wanted: Range<usize>) -> &dyn Logits {
        self.wanted = wanted;
        self
    }
}

impl Logits for Free {
    fn vocabulary(&self) -> usize {
        VOCABULARY
    }

    fn argmax(&self, row: usize) -> (u32, f32) {
        ((self.last[self.wanted.clone()][row] + 1) % VOCABULARY as u32, 1.0)
    }

    fn log_softmax_top(&self, _: usize, _: u32, _: usize) -> (f32, Vec<(u32, f32)>) {
        unreachable!("no log probabilities are asked for")
    }

    fn copy_row(&self, _: usize, _: &mut Vec<f32>) {
        unreachable!("greedy sampling needs no row")
    }
}

/// How often memory was allocated, or moved to grow.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's terms.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}
