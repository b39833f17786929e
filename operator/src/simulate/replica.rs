//! A model of one replica: continuous batching with chunked prefill.
//!
//! A step computes one token of every running request and up to [`Speed::chunk`] tokens of the prompts that wait, first come
//! first served, as long as the batch has a slot; fewer beside running requests, where the step would take longer than
//! [`Speed::itl`] (the engine finds that size out, `runtime/engine/src/chunks.rs`; here it is known). It takes `step + token · running + prompt · chunk` seconds. A prompt that
//! is through has its first token at the end of the step. Steps that are alike are computed at once.

use coterie_api::rank_load::RankLoad;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// How fast a replica is.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Seconds of a step, whatever is in it.
    pub step: f64,
    /// Seconds more for each running request.
    pub token: f64,
    /// Seconds more for each prompt token.
    pub prompt: f64,
    /// Requests in one batch.
    pub slots: usize,
    /// Prompt tokens in one step at most.
    pub chunk: f64,
    /// Seconds that a step with prompts and running requests is to take at most.
    pub itl: f64,
}

/// Prompt tokens that a step computes however long it takes.
const LEAST_CHUNK: f64 = 32.0;
/// The share of [`Speed::itl`] that steps take.
const AIM: f64 = 0.95;
/// A step may take so many times one without prompts.
const OF_DECODING: f64 = 2.0;
/// Seconds of prompts that wait in a replica at most before it gets one more.
const PROMPTS: f64 = 0.2;

/// A request on its way through a replica.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Its place in the trace.
    pub index: usize,
    /// Tokens.
    pub prompt: f64,
    /// Tokens; at least 1.
    pub output: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// Its first token is there.
    First(usize, f64),
    /// Its last one is.
    Last(usize, f64),
}

/// One replica of one rank.
#[derive(Debug)]
pub struct Replica {
    /// A number of its own.
    pub id: u64,
    /// When it was asked for.
    pub made: f64,
    /// When it is ready.
    pub ready: f64,
    /// Whether it takes nothing new and goes when it is empty.
    pub draining: bool,
    speed: Speed,
    /// Up to where it was computed.
    clock: f64,
    /// With the time from which on each may be begun, and the tokens of its prompt that are left.
    waiting: VecDeque<(f64, f64, Request)>,
    waiting_tokens: f64,
    /// By the number of the step in which each ends.
    running: BinaryHeap<Reverse<(u64, usize)>>,
    load: RankLoad,
    computed: f64,
    begun_tokens: f64,
}

impl Replica {
    /// One that is asked for at `made`.
    pub fn new(id: u64, made: f64, ready: f64, speed: Speed) -> Self {
        Self {
            id,
            made,
            ready,
            draining: false,
            speed,
            clock: ready,
            waiting: VecDeque::new(),
            waiting_tokens: 0.0,
            running: BinaryHeap::new(),
            load: RankLoad { since: id + 1, max_running: speed.slots as u64, ..RankLoad::default() },
            computed: 0.0,
            begun_tokens: 0.0,
        }
    }

    /// Gives it a request.
    pub fn take(&mut self, request: Request, now: f64) {
        self.waiting.push_back((now.max(self.ready), request.prompt, request));
        self.waiting_tokens += request.prompt;
    }

    /// Requests that it has.
    pub fn in_flight(&self) -> usize {
        self.waiting.len() + self.running.len()
    }

    /// Steps that it has done.
    pub fn steps(&self) -> u64 {
        self.load.steps
    }

    /// Whether it should be given one more.
    pub fn has_room(&self) -> bool {
        self.in_flight() < self.speed.slots && self.waiting_tokens * self.speed.prompt < PROMPTS
    }

    /// Seconds of work that a new request would find.
    pub fn expected_wait(&self) -> f64 {
        self.waiting_tokens * self.speed.prompt + self.running.len() as f64 * self.speed.token
    }

    /// What it would answer to `GET /load`.
    pub fn load(&self) -> RankLoad {
        let begun = |(_, left, request): &&(f64, f64, Request)| *left < request.prompt;
        let begun = || self.waiting.iter().take(self.speed.slots).filter(begun);
        let prefilling = begun().count() as u64;
        let prefilling_tokens = begun().map(|(_, left, _)| left).sum::<f64>();
        RankLoad {
            ready: true,
            waiting: self.waiting.len() as u64 - prefilling,
            waiting_tokens: (self.waiting_tokens - prefilling_tokens).max(0.0) as u64,
            prefilling_tokens: prefilling_tokens as u64,
            running: self.running.len() as u64 + prefilling,
            computed_tokens: self.computed as u64,
            prompt_tokens: self.begun_tokens as u64,
            ..self.load.clone()
        }
    }

    /// Computes all steps that end until `until`, and tells what happened in them.
    pub fn advance(&mut self, until: f64, mut tell: impl FnMut(Event)) {
        loop {
            if self.running.is_empty() {
                // Idle until the next request may be begun.
                let Some((from, _, _)) = self.waiting.front() else { return };
                self.clock = self.clock.max(*from);
            }
            let chunk = self.chunk();
            let seconds = self.speed.step
                + self.speed.token * self.running.len() as f64
                + self.speed.prompt * chunk.iter().map(|(_, tokens)| tokens).sum::<f64>();
            if self.clock + seconds > until {
                return;
            }
            if chunk.is_empty() {
                self.decode(seconds, until, &mut tell);
            } else {
                self.mixed(seconds, &chunk, &mut tell);
            }
        }
    }

    /// What the next step computes of which waiting prompts: places in the queue, and tokens.
    fn chunk(&self) -> Vec<(usize, f64)> {
        let Speed { step, token, prompt, chunk: most, itl, .. } = self.speed;
        let mut free = most;
        if !self.running.is_empty() {
            let decoding = step + token * self.running.len() as f64;
            let left = AIM * itl.max(OF_DECODING * decoding) - decoding;
            free = (left / prompt).max(LEAST_CHUNK).min(most);
        }
        let mut chunk = Vec::new();
        let slots = self.speed.slots.saturating_sub(self.running.len());
        for (at, (from, left, _)) in self.waiting.iter().enumerate().take(slots) {
            if free <= 0.0 || *from > self.clock {
                break;
            }
            let tokens = left.min(free);
            free -= tokens;
            chunk.push((at, tokens));
        }
        chunk
    }

    /// As many steps without prompts as are alike.
    fn decode(&mut self, seconds: f64, until: f64, tell: &mut impl FnMut(Event)) {
        let Some(Reverse((first_end, _))) = self.running.peek() else { return };
        let mut steps = (((until - self.clock) / seconds).floor() as u64).min(first_end - self.load.steps);
        if let Some((from, _, _)) = self.waiting.front().filter(|_| self.running.len() < self.speed.slots) {
            steps = steps.min(((from - self.clock) / seconds).ceil().max(1.0) as u64);
        }
        self.count(steps.max(1), seconds);
        self.end_requests(tell);
    }

    /// One step with chunks of prompts.
    fn mixed(&mut self, seconds: f64, chunk: &[(usize, f64)], tell: &mut impl FnMut(Event)) {
        let mut through = 0;
        for (at, tokens) in chunk {
            let (_, left, request) = &mut self.waiting[*at];
            if *left == request.prompt {
                self.load.requests += 1;
                self.begun_tokens += request.prompt;
            }
            *left -= tokens;
            self.waiting_tokens -= tokens;
            self.computed += tokens;
            through += usize::from(*left <= 0.0);
        }
        self.count(1, seconds);
        for (_, _, request) in self.waiting.drain(..through) {
            self.load.generated_tokens += 1;
            tell(Event::First(request.index, self.clock));
            if request.output <= 1 {
                tell(Event::Last(request.index, self.clock));
            } else {
                self.running.push(Reverse((self.load.steps + request.output - 1, request.index)));
            }
        }
        if self.waiting.is_empty() {
            self.waiting_tokens = 0.0;
        }
        self.end_requests(tell);
    }

    fn count(&mut self, steps: u64, seconds: f64) {
        self.clock += steps as f64 * seconds;
        self.load.steps += steps;
        self.load.busy_seconds += steps as f64 * seconds;
        self.load.generated_tokens += steps * self.running.len() as u64;
    }

    fn end_requests(&mut self, tell: &mut impl FnMut(Event)) {
        while let Some(Reverse((end, index))) = self.running.peek().copied() {
            if end > self.load.steps {
                return;
            }
            self.running.pop();
            tell(Event::Last(index, self.clock));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEED: Speed =
        Speed { step: 0.01, token: 0.001, prompt: 0.000_1, slots: 2, chunk: 512.0, itl: 1.0 };

    fn events(requests: &[(f64, f64, u64)], until: f64) -> (Vec<Event>, Replica) {
        let mut replica = Replica::new(0, 0.0, 1.0, SPEED);
        for (index, (from, prompt, output)) in requests.iter().enumerate() {
            replica.take(Request { index, prompt: *prompt, output: *output }, *from);
        }
        let mut events = Vec::new();
        replica.advance(until, |event| events.push(event));
        (events, replica)
    }

    #[track_caller]
    fn at(event: Event, expected: Event) {
        let parts = |event| match event {
            Event::First(index, time) => (0, index, time),
            Event::Last(index, time) => (1, index, time),
        };
        let ((kind, index, time), (kind_expected, index_expected, expected)) =
            (parts(event), parts(expected));
        assert_eq!((kind, index), (kind_expected, index_expected));
        assert!((time - expected).abs() < 1e-9, "{time} is not {expected}");
    }

    #[test]
    fn one_request_takes_its_chunks_and_then_its_tokens() {
        // 600 tokens: chunks of 512 and 88, then two more tokens in a batch of one.
        let (events, replica) = events(&[(0.0, 600.0, 3)], 10.0);
        let first = 1.0 + (0.01 + 0.0512) + (0.01 + 0.0088);
        at(events[0], Event::First(0, first));
        at(events[1], Event::Last(0, first + 2.0 * 0.011));
        let load = replica.load();
        assert_eq!((load.steps, load.generated_tokens, load.computed_tokens, load.requests), (4, 3, 600, 1));
        assert!((load.busy_seconds - (first + 0.022 - 1.0)).abs() < 1e-9);
        assert_eq!((load.waiting, load.running, load.prompt_tokens), (0, 0, 600));
    }

    #[test]
    fn chunks_beside_who_decodes_keep_the_time_between_tokens() {
        let speed = Speed { itl: 0.04, ..SPEED };
        let mut replica = Replica::new(0, 0.0, 1.0, speed);
        replica.take(Request { index: 0, prompt: 10.0, output: 2 }, 0.0);
        replica.advance(1.0111, |_| ());
        replica.take(Request { index: 1, prompt: 1000.0, output: 1 }, 1.011);
        let mut events = Vec::new();
        replica.advance(9.0, |event| events.push(event));
        at(events[0], Event::Last(0, 1.011 + 0.95 * 0.04));
        // 270 tokens were computed in that step, the others in chunks of 512 and 218 with nobody beside.
        at(events[1], Event::First(1, 1.049 + 0.01 + 0.0512 + 0.01 + 0.0218));
    }

    #[test]
    fn a_batch_has_its_slots_and_the_third_waits() {
        let (events, replica) = events(&[(0.0, 10.0, 100), (0.0, 10.0, 5), (0.0, 10.0, 1)], 1.05);
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!((replica.load().waiting, replica.load().running), (1, 2));
        assert!(!replica.has_room());
    }

    #[test]
    fn a_step_that_is_not_over_is_not_told() {
        let (events, mut replica) = events(&[(0.0, 10.0, 3)], 1.0109);
        assert!(events.is_empty(), "the first step ends at 1.011");
        let mut later = Vec::new();
        replica.advance(1.02, |event| later.push(event));
        at(later[0], Event::First(0, 1.011));
        assert_eq!(later.len(), 1);
    }

    #[test]
    fn in_pieces_it_is_the_same_as_at_once() {
        let requests: Vec<(f64, f64, u64)> = (0..40)
            .map(|i| (f64::from(i) * 0.037, 100.0 + f64::from(i * 37 % 900), 1 + (i as u64 * 7) % 50))
            .collect();
        let (at_once, whole) = events(&requests, 60.0);
        let mut replica = Replica::new(0, 0.0, 1.0, SPEED);
        for (index, (from, prompt, output)) in requests.iter().enumerate() {
            replica.take(Request { index, prompt: *prompt, output: *output }, *from);
        }
        let mut in_pieces = Vec::new();
        for tick in 0..6000 {
            replica.advance(f64::from(tick) * 0.01, |event| in_pieces.push(event));
        }
        assert_eq!(at_once.len(), in_pieces.len());
        at_once.iter().zip(&in_pieces).for_each(|(one, other)| at(*one, *other));
        assert_eq!(whole.load().steps, replica.load().steps);
    }
}
