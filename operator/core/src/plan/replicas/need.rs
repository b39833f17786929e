//! How many replicas the demand takes.
//!
//! - **Steady:** the fewest replicas that meet the demand that lasts, with what it may grow by before a replica comes
//!   ([`super::growth`]), and that would have met the demand of the last minutes ([`super::lately`]).
//! - **Backlog:** what waits now, less what the ready replicas and those on their way do until another one could be
//!   ready. Only what is left then can be helped by more replicas.
//!
//! Never more replicas than requests: one that comes from zero, however large, makes one replica.

use super::arrivals::Arrived;
use super::cost::Cost;
use super::demand::Signals;
use super::fleet::Fleet;
use super::growth::grown;
use super::lately::lately;
use crate::validate::Scaling;

/// What is assumed before a replica has come.
pub const START_SECONDS: f64 = 60.0;
/// Demand is measured over as many seconds as so many requests took to come: by then their chance evens out to a
/// twentieth. And over no less than this share of the time that a replica takes to come: what lasts shorter is long gone
/// by then. Within these bounds.
const STEADY_REQUESTS: f64 = 400.0;
const STEADY_SHARE: f64 = 0.125;
const STEADY_SECONDS: (usize, usize) = (5, 30);
/// A jump is not seen in fewer seconds, since what comes within one may have come at once, nor in fewer deviations of a
/// count: requests that depend on each other vary more than chance.
const JUMP_SECONDS: usize = 2;
const JUMP: f64 = 15.0;
/// What is planned for: deviations of the growth in the time that a replica takes to come.
const DEVIATIONS: f64 = 0.75;

/// How many replicas the demand takes, and the numbers that say so.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Need {
    /// For what comes.
    pub steady: f64,
    /// For what waits, beyond that.
    pub backlog: f64,
    /// Seconds of work that come each second.
    pub work: f64,
    /// Seconds of work that one replica can do in a second.
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

/// What the demand takes, whatever replicas there are.
#[derive(Debug)]
pub struct Needs<'a> {
    policy: &'a Scaling,
    signals: &'a Signals,
    start: f64,
    /// `None` until a rank was measured.
    measured: Option<Asked<'a>>,
}

/// What is known where ranks were measured.
#[derive(Debug)]
struct Asked<'a> {
    cost: Cost<'a>,
    /// Seconds of work that come each second.
    work: f64,
    /// What that may have become when a replica that is made now is ready.
    grown: f64,
    /// Replicas for the demand of the last minutes.
    lately: f64,
    /// Seconds of work that wait.
    waiting: f64,
}

/// Whether there must be room for what the demand may grow by in the time that a replica takes to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// For what comes.
    Now,
    /// And for what that may have become.
    Growth,
}

impl<'a> Needs<'a> {
    /// Of replicas of `width` ranks.
    pub fn of(policy: &'a Scaling, signals: &'a Signals, width: usize) -> Self {
        let start = signals.start.unwrap_or(START_SECONDS).max(0.0);
        let measured = signals.measured.as_ref().map(|measured| {
            let cost = Cost::of(policy, measured, width.max(1) as f64);
            // The newest second is not over.
            let over = &signals.arrived[..signals.arrived.len().saturating_sub(1)];
            let demand: Vec<f64> = over.iter().map(|second| cost.work(second)).collect();
            let window = window(over, start);
            let lasting = lasting(&demand, window);
            let jumped = since_a_jump(over, window).map_or(0.0, |seconds| self::lasting(&demand, seconds));
            Asked {
                work: lasting.max(jumped),
                grown: grown(&demand, lasting, window, start, DEVIATIONS).max(jumped),
                lately: lately(&demand, signals.newest_second, window, start, &cost),
                waiting: cost.waiting(signals),
                cost,
            }
        });
        Self { policy, signals, start, measured }
    }

    /// Beside these replicas; `margin` is how much more demand there might be, 1 for what there is.
    pub fn beside(&self, fleet: &Fleet, margin: f64, room: Room) -> Need {
        let Some(Asked { cost, work, grown, lately, waiting }) = &self.measured else {
            return unmeasured(self.policy, self.signals, fleet);
        };
        let provided = margin * if room == Room::Growth { *grown } else { *work };
        let steady = (provided / cost.capacity).max(cost.slots(provided)).max(lately * margin);
        let work = work * margin;
        let (left, backlog) = cost.backlog(*waiting, work, steady, fleet, self.start);
        Need {
            steady,
            backlog,
            work,
            capacity: cost.capacity,
            waiting: *waiting,
            queued: waiting / cost.allowance.max(1e-9),
            left,
            start: self.start,
            requests: self.signals.requests(),
        }
    }

    /// The fewest replicas of the fleet that do: if the others went, those that stay would not ask for them back. What is
    /// needed beside a large fleet says little about that, since the fleet itself works off what waits.
    pub fn enough(&self, fleet: &Fleet, margin: f64, room: Room) -> usize {
        let needed = |fleet: &Fleet| self.beside(fleet, margin, room).replicas();
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

/// Seconds over which demand is measured.
fn window(arrived: &[Arrived], start: f64) -> usize {
    let (least, most) = STEADY_SECONDS;
    let least = ((STEADY_SHARE * start).round() as usize).clamp(least, most);
    let mut came = 0.0;
    let newest = arrived.iter().rev().take(most);
    let enough = newest.map(|second| {
        came += second.requests;
        came >= STEADY_REQUESTS
    });
    enough.take_while(|enough| !enough).count().saturating_add(1).clamp(least, most)
}

/// Seconds since the rate of requests jumped: those whose count is farthest from what the `window` before them makes one
/// expect, if that is so far that chance is no reason. Their mean with what was before them would tell of a spike only
/// when it is over (a likelihood ratio for a change in a Poisson process, in its normal form).
fn since_a_jump(arrived: &[Arrived], window: usize) -> Option<usize> {
    let newest = |seconds: usize| -> f64 {
        arrived.iter().rev().take(seconds).map(|second| second.requests.max(0.0)).sum()
    };
    let surprise = |seconds: usize| {
        let came = newest(seconds);
        let expected = (newest(seconds + window) - came) / window as f64 * seconds as f64;
        (came - expected) / expected.max(1.0).sqrt()
    };
    // Before the first request there was no rate.
    let first = arrived.iter().position(|second| second.requests > 0.0)?;
    let known = (arrived.len() - first).saturating_sub(window);
    let surprises = (JUMP_SECONDS..window.min(known)).map(|seconds| (seconds, surprise(seconds)));
    let (seconds, most) = surprises.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    (most > JUMP).then_some(seconds)
}

/// The mean of the last seconds. What came at once and did not go on is a backlog, and no rate that could be gone on with.
fn lasting(seconds: &[f64], window: usize) -> f64 {
    let (mut sum, mut highest, mut next) = (0.0, 0.0_f64, 0.0_f64);
    for second in &seconds[seconds.len().saturating_sub(window)..] {
        sum += second;
        next = next.max(second.min(highest));
        highest = highest.max(*second);
    }
    let at_once = (highest - AT_ONCE * next).max(0.0);
    ((sum - at_once) / window as f64).max(0.0)
}
