//! A fluid of requests, replicas that take time to come, and a scaler that watches both, in virtual time.
//!
//! Deliberately not the simulator's model of a replica: the scaler has to do with either.

use crate::plan::replicas::{Decision, Fleet, Scaler, record};
use crate::validate::Scaling;
use coterie_api::deployment::scaling::ScalingStatus;
use coterie_api::front_door::ModelLoad;
use coterie_api::rank_load::RankLoad;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

pub const PROMPT: u64 = 1000;
pub const OUTPUT: u64 = 100;
/// Seconds of work of a request: 1000 tokens at 8000 a second, and 100 at 0.3 ms.
pub const WORK: f64 = 0.155;

pub fn policy(least: usize, most: usize) -> Scaling {
    Scaling {
        least,
        most,
        queue_target: None,
        ttft: SignedDuration::from_secs(2),
        itl: SignedDuration::from_millis(50),
        idle: SignedDuration::from_secs(600),
        quiet: Some(SignedDuration::from_secs(300)),
    }
}

pub struct Stage {
    pub policy: Scaling,
    pub scaler: Scaler,
    pub status: Option<ScalingStatus>,
    /// Seconds since the beginning.
    pub second: i64,
    /// Seconds from made to Ready.
    pub cold_start: i64,
    /// When each replica was made, by a number of its own; ready ones first.
    pub replicas: BTreeMap<u64, i64>,
    /// Requests that wait at the router.
    pub queue: f64,
    /// Nobody answers the operator.
    pub outage: bool,
    /// No rank answers the operator.
    pub ranks_are_silent: bool,
    loads: BTreeMap<u64, (RankLoad, f64)>,
    made: u64,
}

impl Stage {
    /// With so many ready replicas, and nothing measured.
    pub fn new(policy: Scaling, ready: usize, cold_start: i64) -> Self {
        let mut stage = Self {
            policy,
            scaler: Scaler::new(None, at(0)),
            status: None,
            second: 0,
            cold_start,
            replicas: BTreeMap::new(),
            queue: 0.0,
            outage: false,
            ranks_are_silent: false,
            loads: BTreeMap::new(),
            made: 0,
        };
        (0..ready).for_each(|_| stage.make(-cold_start));
        stage.scaler.demand.started(SignedDuration::from_secs(cold_start));
        stage
    }

    pub fn desired(&self) -> usize {
        self.status.as_ref().map_or(self.replicas.len(), |status| status.desired as usize)
    }

    fn make(&mut self, when: i64) {
        self.replicas.insert(self.made, when);
        self.made += 1;
    }

    fn ready(&self) -> Vec<u64> {
        let is_ready = |(_, made): &(&u64, &i64)| **made + self.cold_start <= self.second;
        self.replicas.iter().filter(is_ready).map(|(id, _)| *id).collect()
    }

    /// One second with so many requests; then the scaler decides, and replicas are made and dropped.
    pub fn second(&mut self, requests: f64) -> Decision {
        self.second += 1;
        self.queue += requests;
        self.answer();
        let now = at(self.second);
        self.tell(now);
        let ready = self.ready().len();
        let is_coming = |made: &&i64| **made + self.cold_start > self.second;
        let starting = self.replicas.values().filter(is_coming);
        let fleet = Fleet {
            width: 1,
            ready,
            starting: starting.map(|made| SignedDuration::from_secs(self.second - made)).collect(),
        };
        let before = self.desired();
        let decision = self.scaler.decide(&self.policy, &fleet, Some(before), now);
        self.status = Some(record(self.status.as_ref(), &decision, before, now));
        while self.replicas.len() < decision.desired {
            self.make(self.second);
        }
        while self.replicas.len() > decision.desired {
            self.replicas.pop_last();
        }
        decision
    }

    /// The ready replicas share the queue evenly; each works off what 0.8 of a second allows.
    fn answer(&mut self) {
        let ready = self.ready();
        let done = (ready.len() as f64 * 0.8 / WORK).min(self.queue);
        self.queue -= done;
        for id in &ready {
            let (load, left_over) = self.loads.entry(*id).or_default();
            // Whole requests are counted.
            *left_over += done / ready.len() as f64;
            let whole = left_over.floor();
            *left_over -= whole;
            let count = whole as u64;
            load.since = id + 1;
            load.max_running = 64;
            load.ready = true;
            load.requests += count;
            load.prompt_tokens += count * PROMPT;
            load.computed_tokens += count * PROMPT;
            load.generated_tokens += count * OUTPUT;
            // The batch is different from second to second.
            let steps = if count > 0 { 20 + (self.second as u64 + id) % 17 } else { 0 };
            load.steps += steps;
            load.busy_seconds += steps as f64 * 0.01 + whole * WORK;
            load.running = count.min(64);
        }
    }

    fn tell(&mut self, now: Timestamp) {
        let ready = self.ready();
        let uids: BTreeSet<String> = ready.iter().map(u64::to_string).collect();
        self.scaler.demand.expect(&uids, &BTreeSet::from(["router".to_owned()]), now);
        // Who is there is seen all the same.
        if self.outage {
            return;
        }
        let waiting = self.queue.floor() as u64;
        let load = ModelLoad { waiting, waiting_tokens: waiting * PROMPT, ..ModelLoad::default() };
        self.scaler.demand.router("router", &load, now);
        for id in ready.into_iter().filter(|_| !self.ranks_are_silent) {
            if let Some((load, _)) = self.loads.get(&id) {
                self.scaler.demand.rank(&id.to_string(), load, now);
            }
        }
    }

    /// Another operator takes over: all that is left is the status.
    pub fn restart(&mut self) {
        self.scaler = Scaler::new(self.status.as_ref(), at(self.second));
    }

    pub fn run(&mut self, seconds: i64, requests: f64) {
        (0..seconds).for_each(|_| drop(self.second(requests)));
    }
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}
