//! How many replicas the demand takes.
//!
//! Work is counted in seconds: what a rank would take for a request's prompt and answer if steps cost nothing by
//! themselves. A rank does at most `share` of a second's work in a second, the rest goes to the steps: with load `l`
//! a step takes `step / (1 - l)`, which is the time between two tokens, so the load that just keeps the ITL is
//! `share = 1 - step / itl`; or less, if a rank that had more to do than it could was seen to do less. Planned for is less
//! again, by a headroom for what the demand may grow to before a replica comes.
//!
//! - **Steady:** the fewest replicas that meet the demand that lasts, and that would have
//!   met the demand of the last minutes: with them no request of those seconds would have waited longer than the TTFT
//!   leaves.
//! - **Backlog:** what waits now, less what the ready replicas and those on their way do until another one could be
//!   ready. Only what is left then can be helped by more replicas.
//!
//! Never more replicas than requests: one that comes from zero, however large, makes one replica.

use super::arrivals::Arrived;
use super::demand::{Measured, Signals};
use super::fleet::Fleet;
use crate::validate::Scaling;

/// What is assumed before a replica has come.
pub const START_SECONDS: f64 = 60.0;
/// Demand is steady if it lasts a quarter of what a replica takes to come; within these bounds.
const STEADY_SHARE: f64 = 0.25;
const STEADY_SECONDS: (f64, f64) = (5.0, 30.0);
/// A backlog is drained in the time that a replica takes to come, but not faster than so.
const DRAIN_SECONDS: f64 = 10.0;
/// Demand wanders, as far as the square root of the time that it has: by how much more is planned for each square root of
/// a second that a replica takes to come, and the bounds of that. Docs: docs/design/020-scaler.md.
const HEADROOM: f64 = 0.033;
const HEADROOM_BOUNDS: (f64, f64) = (0.1, 0.6);
/// Share of its time that a rank can spend on work at most, before one was seen with more to do than it could: steps have
/// only so many tokens. And the least that is believed of one that was.
const FULL_SHARE: f64 = 0.8;
const FULL_SHARE_LEAST: f64 = 0.3;
/// Seconds of demand that are looked at as one.
const BLOCK: usize = 30;
/// A prompt of so many times the mean must still get its first token in time.
const LONG_PROMPT: f64 = 3.0;

/// How many replicas the demand takes, and the numbers that say so.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Need {
    /// For what comes.
    pub steady: f64,
    /// For what waits, beyond that.
    pub backlog: f64,
    /// Seconds of work that come each second.
    pub work: f64,
    /// Seconds of work of one replica in a second that are planned for.
    pub capacity: f64,
    /// Seconds of work that wait.
    pub waiting: f64,
    /// Replicas for which no more waits than may wait.
    pub queued: f64,
    /// Seconds of work that will be left when a replica that is made now is ready.
    pub left: f64,
    /// Seconds that a replica takes to Ready.
    pub start: f64,
    /// Requests of the last minutes: so many replicas at most have something to do.
    pub requests: f64,
}

impl Need {
    /// Whole replicas.
    pub fn replicas(&self) -> usize {
        self.whole(self.steady + self.backlog)
    }

    /// Whole replicas, of which none goes while so much waits.
    pub fn queued(&self) -> usize {
        self.whole(self.queued)
    }

    fn whole(&self, replicas: f64) -> usize {
        // A need of 2.0000001 is 2: the numbers are measured.
        let whole = (replicas - 1e-3).ceil();
        whole.min(self.requests.ceil()).clamp(0.0, 1e6) as usize
    }
}

/// What the demand takes; `margin` is how much more of it there might be, 1 for what there is.
pub fn need(policy: &Scaling, signals: &Signals, fleet: &Fleet, margin: f64) -> Need {
    let width = fleet.width.max(1) as f64;
    let Some(measured) = &signals.measured else {
        return unmeasured(policy, signals, fleet);
    };
    let start = signals.start.unwrap_or(START_SECONDS).max(0.0);
    let cost = Cost::of(policy, measured, width, start);
    // The newest second is not over.
    let over = signals.arrived.len().saturating_sub(1);
    let demand: Vec<f64> = signals.arrived[..over].iter().map(|second| cost.work(second) * margin).collect();
    let window = (STEADY_SHARE * start).clamp(STEADY_SECONDS.0, STEADY_SECONDS.1);
    let work = lasting(&demand, window);
    let waiting = cost.waiting(signals);
    let steady =
        (work / cost.capacity).max(cost.slots(work)).max(cost.lately(&demand, signals.newest_second));
    let (left, backlog) = cost.backlog(waiting, work, steady, fleet, start);
    let requests = signals.requests();
    let queued = waiting / cost.allowance.max(1e-9);
    Need { steady, backlog, work, capacity: cost.capacity, waiting, queued, left, start, requests }
}

/// The fewest replicas of the fleet that do: if the others went, those that stay would not ask for them back. What is
/// needed beside a large fleet says little about that, since the fleet itself works off what waits.
pub fn enough(policy: &Scaling, signals: &Signals, fleet: &Fleet, margin: f64) -> usize {
    let needed = |fleet: &Fleet| need(policy, signals, fleet, margin).replicas();
    let (mut fewest, mut most) = (needed(fleet), fleet.replicas());
    // The fewer stay, the more is needed: halving finds it.
    while fewest < most {
        let count = fewest.midpoint(most);
        if needed(&fleet.kept(count)) <= count {
            most = count;
        } else {
            fewest = count + 1;
        }
    }
    fewest
}

/// Without rates: as many replicas as can hold all requests at once, by what the user says may wait. A replica that is
/// ready and has just got its first requests shows its rates in a moment, and whether it is enough.
fn unmeasured(policy: &Scaling, signals: &Signals, fleet: &Fleet) -> Need {
    let first = signals.arrived.iter().position(|second| second.requests > 0.0);
    let begun = first.is_some_and(|first| signals.arrived.len() - first <= MEASURED_WITHIN);
    let queued = signals.queue_depth() as f64 / unmeasured_target(policy);
    Need {
        backlog: if begun && fleet.ready > 0 { 0.0 } else { queued },
        queued,
        start: signals.start.unwrap_or(START_SECONDS),
        requests: signals.requests(),
        ..Need::default()
    }
}

/// Requests that may wait for each replica while nothing was measured.
pub(super) fn unmeasured_target(policy: &Scaling) -> f64 {
    policy.queue_target.map_or(UNMEASURED_TARGET, f64::from)
}

/// Enough that a handful does not start a second one.
const UNMEASURED_TARGET: f64 = 32.0;
/// Seconds in which a rank that has got requests is measured; the one in which they came counts.
const MEASURED_WITHIN: usize = 3;

/// Times the next highest second that the highest one may count: more did not come at a rate, but at once.
const AT_ONCE: f64 = 2.0;

/// The mean of the last seconds. What came at once and did not go on is a backlog, and no rate that could be gone on with.
fn lasting(seconds: &[f64], window: f64) -> f64 {
    let count = (window.round() as usize).min(seconds.len());
    let (mut sum, mut highest, mut next) = (0.0, 0.0_f64, 0.0_f64);
    for second in &seconds[seconds.len() - count..] {
        sum += second;
        next = next.max(second.min(highest));
        highest = highest.max(*second);
    }
    let at_once = (highest - AT_ONCE * next).max(0.0);
    ((sum - at_once) / window).max(0.0)
}

/// What requests cost, and what replicas can pay.
struct Cost<'a> {
    measured: &'a Measured,
    /// Work of one replica in a second that is planned for, seconds.
    capacity: f64,
    /// Work that may wait for each replica, seconds.
    allowance: f64,
    /// Requests that one replica runs at once.
    slots: f64,
    /// Seconds from one token to the next of a rank that works as much as it may.
    pace: f64,
}

impl<'a> Cost<'a> {
    fn of(policy: &Scaling, measured: &'a Measured, width: f64, start: f64) -> Self {
        let rates = measured.rates;
        // Where a rank alone takes more than half of the ITL, more replicas cannot reach it.
        let itl = policy.itl.as_secs_f64().max(2.0 * rates.step).max(1e-3);
        let headroom = (HEADROOM * start.sqrt()).clamp(HEADROOM_BOUNDS.0, HEADROOM_BOUNDS.1);
        let possible = measured.full_share.map_or(FULL_SHARE, |share| share.clamp(FULL_SHARE_LEAST, 0.99));
        let share = (1.0 - rates.step / itl).min(possible);
        let capacity = width * share / (1.0 + headroom);
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

    fn work(&self, arrived: &Arrived) -> f64 {
        let Measured { rates, computed_share, output_tokens, .. } = self.measured;
        arrived.prompt_tokens * computed_share * rates.prompt + arrived.requests * output_tokens * rates.token
    }

    fn waiting(&self, signals: &Signals) -> f64 {
        let requests = signals.queue_depth() as f64;
        self.work(&Arrived { requests, prompt_tokens: signals.waiting_tokens }).max(0.0)
    }

    /// Replicas whose batches hold what runs at once, by Little's law.
    fn slots(&self, work: f64) -> f64 {
        let per_second = work / self.request().max(1e-9);
        per_second * self.measured.output_tokens * self.pace / self.slots
    }

    /// Replicas that would have kept every first token in time, in the blocks of the last minutes. The highest block is
    /// left out, with those beside it: what has come only once may not come again, and is gone before a replica comes.
    fn lately(&self, demand: &[f64], newest: i64) -> f64 {
        // Blocks begin at the same seconds each time, so that a burst is in the same one at each look.
        let into = usize::try_from(newest.rem_euclid(BLOCK as i64)).unwrap_or(0);
        let (whole, _) = demand.split_at(demand.len().saturating_sub(into));
        let blocks: Vec<f64> = whole.rchunks(BLOCK).map(|block| self.enough_for(block)).collect();
        let highest = (0..blocks.len()).max_by(|a, b| blocks[*a].total_cmp(&blocks[*b])).unwrap_or(0);
        let others = blocks.iter().enumerate().filter(|(at, _)| at.abs_diff(highest) > 1);
        others.map(|(_, need)| *need).fold(0.0, f64::max)
    }

    /// The fewest replicas, not whole, with which nothing waits longer than is allowed: after each second, what came
    /// since some second before, less what was done since, is at most the allowance.
    fn enough_for(&self, demand: &[f64]) -> f64 {
        let mut most = 0.0_f64;
        for begin in 0..demand.len() {
            let mut came = 0.0;
            for (seconds, work) in demand[begin..].iter().enumerate() {
                came += work;
                most = most.max(came / ((seconds + 1) as f64 * self.capacity + self.allowance));
            }
        }
        most
    }

    /// Work that is left when a replica made now is ready, and the replicas that this takes beyond `steady`.
    fn backlog(&self, waiting: f64, work: f64, steady: f64, fleet: &Fleet, start: f64) -> (f64, f64) {
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
