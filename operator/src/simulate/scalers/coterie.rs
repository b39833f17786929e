//! Our own scaler: the very function that the operator runs, fed as the operator feeds it.

use super::{Autoscaler, Seen};
use coterie_api::front_door::ModelLoad;
use coterie_operator_core::plan::replicas::{Fleet, Scaler};
use coterie_operator_core::validate::Scaling;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// The scaler, in virtual time.
pub struct Coterie {
    policy: Scaling,
    scaler: Scaler,
    desired: Option<usize>,
    /// Replicas that were told to have started.
    started: BTreeSet<u64>,
    cold_start: f64,
}

const ROUTER: &str = "router";

impl Coterie {
    /// It knows nothing yet of requests and replicas but how long one takes to Ready, which an operator has seen when its
    /// first one came.
    pub fn new(policy: Scaling, cold_start: f64) -> Self {
        let mut scaler = Scaler::new(None, at(0.0));
        scaler.demand.started(SignedDuration::from_secs_f64(cold_start));
        Self { policy, scaler, desired: None, started: BTreeSet::new(), cold_start }
    }

    fn feed(&mut self, seen: &Seen) {
        let now = at(seen.now);
        let ready = || seen.replicas.iter().filter(|replica| replica.ready <= seen.now);
        let ranks = ready().map(|replica| replica.id.to_string()).collect();
        let demand = &mut self.scaler.demand;
        demand.expect(&ranks, &BTreeSet::from([ROUTER.to_owned()]), now);
        let load = ModelLoad {
            waiting: seen.held as u64,
            waiting_tokens: seen.held_tokens as u64,
            running: (seen.requests() - seen.held) as u64,
            requests: seen.arrived as u64,
            ..ModelLoad::default()
        };
        demand.router(ROUTER, &load, now);
        // Every two seconds, every second while something waits: as the operator asks them.
        if seen.now as u64 % 2 == 0 || seen.held > 0 {
            ready().for_each(|replica| demand.rank(&replica.id.to_string(), &replica.load(), now));
        }
        for replica in ready().filter(|replica| replica.ready > 0.0) {
            if self.started.insert(replica.id) {
                demand.started(SignedDuration::from_secs_f64(self.cold_start));
            }
        }
    }
}

impl Autoscaler for Coterie {
    fn every(&self) -> u64 {
        1
    }

    fn decide(&mut self, seen: &Seen) -> usize {
        self.feed(seen);
        let starting = seen.kept().filter(|replica| replica.ready > seen.now);
        let fleet = Fleet {
            width: 1,
            ready: seen.ready(),
            starting: starting
                .map(|replica| SignedDuration::from_secs_f64(seen.now - replica.made))
                .collect(),
        };
        let before = self.desired.or(Some(seen.current()));
        let decision = self.scaler.decide(&self.policy, &fleet, before, at(seen.now));
        self.desired = Some(decision.desired);
        decision.desired
    }
}

/// Virtual time begins in 2001: any time does.
fn at(seconds: f64) -> Timestamp {
    const BEGIN: i64 = 1_000_000_000;
    Timestamp::from_millisecond(BEGIN * 1000 + (seconds * 1000.0) as i64).unwrap_or(Timestamp::MAX)
}
