//! What requests cost, and what replicas can pay.
//!
//! Work is counted in seconds: what a rank would take for a request's prompt and answer if steps cost nothing by
//! themselves. A rank does at most `share` of a second's work in a second, the rest goes to the steps: with load `l`
//! a step takes `step / (1 - l)`, which is the time between two tokens, so the load that just keeps the ITL is
//! `share = 1 - step / itl`; or less, if a rank that had more to do than it could was seen to do less.

use super::arrivals::Arrived;
use super::demand::{Measured, Signals};
use super::fleet::Fleet;
use crate::validate::Scaling;

/// A backlog is drained in the time that a replica takes to come, but not faster than so.
const DRAIN_SECONDS: f64 = 10.0;
/// Share of its time that a rank can spend on work at most, before one was seen with more to do than it could: steps have
/// only so many tokens. And the least that is believed of one that was.
const FULL_SHARE: f64 = 0.8;
const FULL_SHARE_LEAST: f64 = 0.3;
/// A prompt of so many times the mean must still get its first token in time.
const LONG_PROMPT: f64 = 3.0;

/// Of one request, and of one replica.
#[derive(Debug)]
pub struct Cost<'a> {
    measured: &'a Measured,
    /// Work that one replica can do in a second, seconds.
    pub capacity: f64,
    /// Work that may wait for each replica, seconds.
    pub allowance: f64,
    /// Requests that one replica runs at once.
    slots: f64,
    /// Seconds from one token to the next of a rank that works as much as it may.
    pace: f64,
}

impl<'a> Cost<'a> {
    /// Of replicas of `width` ranks.
    pub fn of(policy: &Scaling, measured: &'a Measured, width: f64) -> Self {
        let rates = measured.rates;
        // Where a rank alone takes more than half of the ITL, more replicas cannot reach it.
        let itl = policy.itl.as_secs_f64().max(2.0 * rates.step).max(1e-3);
        let possible = measured.full_share.map_or(FULL_SHARE, |share| share.clamp(FULL_SHARE_LEAST, 0.99));
        let share = (1.0 - rates.step / itl).min(possible);
        let capacity = width * share;
        let pace = rates.step / (1.0 - share);
        let ttft = policy.ttft.as_secs_f64();
        let own =
            LONG_PROMPT * measured.prompt_tokens * measured.computed_share * rates.prompt * width / capacity;
        let mut cost = Self { measured, capacity, allowance: 0.0, slots: measured.max_running * width, pace };
        cost.allowance = match policy.queue_target {
            Some(count) => f64::from(count) * cost.request(),
            None => (ttft - own).max(ttft / 4.0) * capacity,
        };
        cost
    }

    /// Work of the mean request.
    fn request(&self) -> f64 {
        self.work(&Arrived { requests: 1.0, prompt_tokens: self.measured.prompt_tokens })
    }

    /// Work of what came.
    pub fn work(&self, arrived: &Arrived) -> f64 {
        let Measured { rates, computed_share, output_tokens, .. } = self.measured;
        arrived.prompt_tokens * computed_share * rates.prompt + arrived.requests * output_tokens * rates.token
    }

    /// Work that waits.
    pub fn waiting(&self, signals: &Signals) -> f64 {
        let requests = signals.queue_depth() as f64;
        self.work(&Arrived { requests, prompt_tokens: signals.waiting_tokens }).max(0.0)
    }

    /// Replicas whose batches hold what runs at once, by Little's law.
    pub fn slots(&self, work: f64) -> f64 {
        let per_second = work / self.request().max(1e-9);
        per_second * self.measured.output_tokens * self.pace / self.slots
    }

    /// Work that is left when a replica made now is ready, and the replicas that this takes beyond `steady`.
    pub fn backlog(&self, waiting: f64, work: f64, steady: f64, fleet: &Fleet, start: f64) -> (f64, f64) {
        let mut coming: Vec<f64> =
            fleet.starting.iter().map(|age| remaining(age.as_secs_f64(), start)).collect();
        coming.sort_by(f64::total_cmp);
        let (mut at, mut left, mut replicas) = (0.0, waiting, fleet.ready as f64);
        for ready in coming.iter().copied().filter(|ready| *ready < start).chain([start]) {
            left = (left + (work - replicas * self.capacity) * (ready - at)).max(0.0);
            (at, replicas) = (ready, replicas + 1.0);
        }
        let there = steady.max(fleet.replicas() as f64);
        let spare = (there * self.capacity - work).max(0.0);
        let drained = start.max(DRAIN_SECONDS);
        let over = left - there * self.allowance - spare * drained;
        (
            left,
            (over / (drained * self.capacity)).max(0.0) + (there - steady) * f64::from(u8::from(over > 0.0)),
        )
    }
}

/// Seconds until a replica is ready that was made `age` seconds ago. One that is late may take as long again as it is
/// late, but still counts: others would be late as well.
fn remaining(age: f64, start: f64) -> f64 {
    (start - age).abs().min(0.9 * start)
}
