//! A backlog to which nothing is added: what was taken away for it must not be asked back.

use super::stage::{PROMPT, at, policy};
use crate::plan::replicas::{Decision, Fleet, Scaler};
use crate::validate::Scaling;
use coterie_api::front_door::ModelLoad;
use coterie_api::rank_load::RankLoad;
use jiff::SignedDuration;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Tokens of an answer: with the prompt 0.725 s of work.
const OUTPUT: u64 = 2000;
/// Steps of a rank in a second.
const STEPS: u64 = 20;

/// One rank has requests, the others have none; all ranks are there until the scaler takes them away.
struct Backlog {
    policy: Scaling,
    scaler: Scaler,
    second: i64,
    cold_start: i64,
    /// When each replica was made; the first has the requests.
    made: Vec<i64>,
    busy: RankLoad,
    at_router: u64,
    /// Requests that begin in a second, and what is left of one.
    begun: f64,
    left_over: f64,
}

impl Backlog {
    /// Of `running` requests and those that wait, which came eleven minutes ago.
    fn new(policy: Scaling, ready: usize, cold_start: i64, running: u64, waiting: [u64; 2]) -> Self {
        let mut scaler = Scaler::new(None, at(0));
        scaler.demand.started(SignedDuration::from_secs(cold_start));
        let busy = RankLoad { since: 1, ready: true, max_running: 64, ..RankLoad::default() };
        let mut stage = Self {
            policy,
            scaler,
            second: 0,
            cold_start,
            made: vec![-cold_start; ready],
            busy,
            at_router: 0,
            begun: 0.0,
            left_over: 0.0,
        };
        // A thousand requests show the rates before.
        stage.tell();
        for batch in [100, 400, 50, 200, 250] {
            stage.second += 1;
            stage.begin(batch);
            stage.compute(40 * STEPS, batch * OUTPUT);
            stage.tell();
        }
        (stage.busy.running, stage.busy.waiting, stage.at_router) = (running, waiting[0], waiting[1]);
        stage.busy.waiting_tokens = waiting[0] * PROMPT;
        stage.tell();
        stage.second += 660;
        stage
    }

    fn begin(&mut self, requests: u64) {
        self.busy.requests += requests;
        self.busy.prompt_tokens += requests * PROMPT;
        self.busy.computed_tokens += requests * PROMPT;
        self.busy.busy_seconds += (requests * PROMPT) as f64 / 8000.0;
    }

    fn compute(&mut self, steps: u64, tokens: u64) {
        self.busy.steps += steps;
        self.busy.generated_tokens += tokens;
        self.busy.busy_seconds += steps as f64 * 0.01 + tokens as f64 * 0.0003;
    }

    /// As many of those that wait begin as may; then those that run end, if nobody waits any more.
    fn work(&mut self) {
        self.left_over += self.begun;
        let whole = self.left_over.floor();
        self.left_over -= whole;
        let from_rank = self.busy.waiting.min(whole as u64);
        let from_router = self.at_router.min(whole as u64 - from_rank);
        self.busy.waiting -= from_rank;
        self.busy.waiting_tokens = self.busy.waiting * PROMPT;
        self.at_router -= from_router;
        self.begin(from_rank + from_router);
        let ended = whole as u64 - from_rank - from_router;
        self.compute(if whole > 0.0 { STEPS } else { 0 }, whole as u64 * OUTPUT);
        self.busy.running = self.busy.running.saturating_sub(ended);
    }

    fn tell(&mut self) {
        let now = at(self.second);
        let uids = (0..self.made.len()).filter(|rank| self.is_ready(*rank)).map(|rank| rank.to_string());
        self.scaler.demand.expect(&uids.collect(), &BTreeSet::from(["router".to_owned()]), now);
        let tokens = self.at_router * PROMPT;
        let load = ModelLoad { waiting: self.at_router, waiting_tokens: tokens, ..ModelLoad::default() };
        self.scaler.demand.router("router", &load, now);
        let idle = RankLoad { since: 1, ready: true, max_running: 64, ..RankLoad::default() };
        for rank in 0..self.made.len() {
            let load = if rank == 0 { &self.busy } else { &idle };
            self.scaler.demand.rank(&rank.to_string(), load, now);
        }
    }

    fn is_ready(&self, rank: usize) -> bool {
        self.made[rank] + self.cold_start <= self.second
    }

    fn second(&mut self) -> Decision {
        self.second += 1;
        self.work();
        self.tell();
        let (ready, starting): (Vec<usize>, Vec<usize>) =
            (0..self.made.len()).partition(|rank| self.is_ready(*rank));
        let age = |rank: usize| SignedDuration::from_secs(self.second - self.made[rank]);
        let fleet = Fleet { width: 1, ready: ready.len(), starting: starting.into_iter().map(age).collect() };
        let decision = self.scaler.decide(&self.policy, &fleet, Some(self.made.len()), at(self.second));
        self.made.resize(decision.desired, self.second);
        decision
    }
}

/// Two replicas would work the backlog off in time, and one would not.
#[test]
fn a_replica_that_would_be_asked_back_for_the_same_backlog_stays() {
    let mut policy = policy(1, 2);
    policy.quiet = Some(SignedDuration::from_secs(30));
    // More run than wait, so that the rank does not count as one that was seen to be full.
    let mut stage = Backlog::new(policy, 2, 10, 31, [30, 0]);
    for _ in 0..300 {
        let decision = stage.second();
        assert_eq!(decision.desired, 2, "{}", decision.why);
    }
    // Asked with both, it is one; asked with one, it is two.
    let decision = stage.second();
    assert!(decision.need.replicas() <= 1, "{:?}", decision.need);
    stage.made.truncate(1);
    assert_eq!(stage.second().desired, 2);
}

#[test]
fn nothing_is_taken_away_while_more_waits_than_may() {
    let mut policy = policy(1, 2);
    policy.quiet = Some(SignedDuration::from_secs(30));
    // One replica is through before another could come, and still 30 wait at its rank.
    let mut stage = Backlog::new(policy, 2, 60, 16, [30, 0]);
    for _ in 0..100 {
        stage.second();
    }
    let decision = stage.second();
    assert_eq!(
        (decision.desired, decision.why.as_str()),
        (2, "30 requests wait: more than may wait for fewer replicas, so none is taken away")
    );
    stage.begun = 1.0;
    for _ in 0..31 {
        stage.second();
    }
    assert_eq!(stage.made.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_went_does_not_come_back_while_nobody_comes(
        (least, more, ready) in (0..3_usize, 1..8_usize, 0..9_usize),
        (cold_start, quiet) in (1..180_i64, 1..120_i64),
        (running, at_rank, at_router) in (0..64_u64, 0..150_u64, 0..150_u64),
        begun in prop_oneof![Just(0.0), 0.0..10.0_f64],
        ttft in 1..10_i64,
        target in prop::option::of(1..50_u32),
    ) {
        let mut policy = policy(least, least + more);
        policy.quiet = Some(SignedDuration::from_secs(quiet));
        policy.ttft = SignedDuration::from_secs(ttft);
        policy.queue_target = target;
        let ready = ready.clamp(least.max(1), least + more);
        let mut stage = Backlog::new(policy, ready, cold_start, running, [at_rank, at_router]);
        stage.begun = begun;
        let mut went = false;
        for _ in 0..3 * (quiet + cold_start) + 100 {
            let before = stage.made.len();
            let decision = stage.second();
            went |= decision.desired < before;
            prop_assert!(
                !went || decision.desired <= before,
                "{before} -> {} after {} s: {}", decision.desired, stage.second, decision.why
            );
        }
    }
}
