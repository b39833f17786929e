//! How many replicas there should be, from what routers and ranks tell.
//!
//! The shell has a [`Scaler`] for each ModelDeployment with `scaling`. It feeds [`Scaler::demand`] with every answer of a
//! router or a rank, and asks [`Scaler::decide`] every second while something waits or comes up, and when it was told to
//! look again. What must outlive the operator is in `status.scaling`: the number of replicas, the last decisions, and what
//! was measured. An operator that begins anew has forgotten the demand of the last minutes, and therefore scales nothing
//! down, and to zero, before it has watched a quiet window of its own.

pub mod arrivals;
mod cost;
pub mod demand;
mod fleet;
mod growth;
mod held;
mod lately;
pub mod need;
pub mod rates;
mod record;
mod resolved;
#[cfg(test)]
mod tests;
mod why;

pub use demand::{Demand, Measured, Signals};
pub use fleet::Fleet;
pub use need::Need;
pub use record::record;
pub use resolved::resolved;

use crate::validate::Scaling;
use coterie_api::deployment::scaling::ScalingStatus;
use held::Held;
use jiff::{SignedDuration, Timestamp};
use need::{Needs, Room};
use why::{Bound, Reason};

/// A replica goes only if it would not be missed with so much more demand: a demand that stays as it is, with all its
/// chance, makes no replica come and go.
const DOWN_MARGIN: f64 = 1.05;
/// The same where replicas come at once: there growth in a time to Ready leaves no room above the demand, and this margin is
/// all that lies between the demand at which a replica goes and that at which it comes back.
const DOWN_MARGIN_AT_ONCE: f64 = 1.1;
/// A replica that is Ready within so many seconds comes at once.
const AT_ONCE: f64 = 10.0;
/// The quiet window, where nobody says it: so many times what a replica takes to come, within these seconds.
const QUIET_STARTS: f64 = 4.0;
const QUIET_SECONDS: (f64, f64) = (60.0, 300.0);
/// Room for growth is held so much of the time that a replica takes to come.
const RESERVE_SHARE: f64 = 0.5;
/// While something waits, comes or comes up.
const SOON: SignedDuration = SignedDuration::from_secs(1);
/// While nothing does.
const LATER: SignedDuration = SignedDuration::from_secs(10);

/// Decides for one ModelDeployment.
#[derive(Clone, Debug)]
pub struct Scaler {
    /// What routers and ranks tell.
    pub demand: Demand,
    /// What would have been enough for what came, with the margin.
    quiet: Held,
    /// The same, with growth.
    reserve: Held,
}

/// How many replicas there should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Replicas.
    pub desired: usize,
    /// Why, for people.
    pub why: String,
    /// The numbers it was made from.
    pub need: Need,
    /// What they were made from.
    pub signals: Signals,
    /// When to decide again, if nothing happens before.
    pub look_again_after: SignedDuration,
}

impl Scaler {
    /// Goes on from what was last written.
    pub fn new(status: Option<&ScalingStatus>, now: Timestamp) -> Self {
        let kept = status.and_then(|status| status.measured.as_ref());
        Self { demand: Demand::new(kept, now), quiet: Held::default(), reserve: Held::default() }
    }

    /// How many replicas there should be now. `before` is how many there should have been until now; `None` for a
    /// ModelDeployment that the scaler sees for the first time.
    pub fn decide(
        &mut self,
        policy: &Scaling,
        fleet: &Fleet,
        before: Option<usize>,
        now: Timestamp,
    ) -> Decision {
        let signals = self.demand.signals(now);
        let needs = Needs::of(policy, &signals, fleet.width);
        let need_now = needs.beside(fleet, 1.0, Room::Growth);
        let margin = if need_now.start < AT_ONCE { DOWN_MARGIN_AT_ONCE } else { DOWN_MARGIN };
        let enough = |room| needs.enough(fleet, margin, room);
        let window = quiet_window(policy, &need_now);
        let quiet = self.quiet.take(enough(Room::Now), now, window);
        let reserve = self.reserve.take(enough(Room::Growth), now, reserved(window, &need_now));
        let quiet = quiet.max(reserve);
        // The first one comes up even if nobody asks: it shows whether the model can be served, and how long that takes.
        let current = before.unwrap_or_else(|| policy.least.max(fleet.replicas().max(1)));
        let (wanted, reason) = wanted(policy, &signals, &need_now, (quiet, window), current, now);
        let desired = wanted.clamp(policy.least, policy.most);
        if desired == 0 {
            // Who gave all replicas up does not come back with as many for the first request.
            self.demand.forget_arrivals();
        }
        let is_first =
            before.is_none() && fleet.replicas() == 0 && policy.least == 0 && need_now.replicas() == 0;
        let reason = if is_first { Reason::First } else { reason };
        let bound = match wanted {
            wanted if wanted > policy.most => Some(Bound::Most(policy.most)),
            wanted if wanted < policy.least => Some(Bound::Least(policy.least)),
            _ => None,
        };
        let stirs = signals.queue_depth() > 0 || signals.running > 0 || !fleet.starting.is_empty();
        Decision {
            desired,
            why: why::sentence(reason, bound, &need_now, &signals, fleet, policy, window),
            look_again_after: if stirs || desired != current { SOON } else { LATER },
            need: need_now,
            signals,
        }
    }
}

/// In how much time fewer replicas must have done before any goes. What is soon there again need not be kept for long.
fn quiet_window(policy: &Scaling, need: &Need) -> SignedDuration {
    let (least, most) = QUIET_SECONDS;
    let starts = QUIET_STARTS * need.start;
    policy.quiet.unwrap_or_else(|| SignedDuration::from_secs_f64(starts.clamp(least, most)))
}

/// How long room for growth is held: only as long as bringing it back would pay.
fn reserved(window: SignedDuration, need: &Need) -> SignedDuration {
    window.min(SignedDuration::from_secs_f64(RESERVE_SHARE * need.start.clamp(0.0, 1e9)))
}

/// Replicas before the bounds, and what decided.
fn wanted(
    policy: &Scaling,
    signals: &Signals,
    need: &Need,
    (quiet, window): (usize, SignedDuration),
    current: usize,
    now: Timestamp,
) -> (usize, Reason) {
    let waits = signals.queue_depth() > 0;
    let needed = need.replicas();
    if current == 0 {
        return if waits || signals.running > 0 {
            (needed.max(1), Reason::Wake)
        } else {
            (0, Reason::Asleep)
        };
    }
    let watched = |window| signals.complete_since.is_some_and(|since| now.duration_since(since) >= window);
    let idle = now.duration_since(signals.last_request);
    if policy.least == 0 && !waits && signals.running == 0 && idle >= policy.idle && watched(policy.idle) {
        return (0, Reason::Idle);
    }
    if needed > current {
        return (needed, Reason::Grow);
    }
    // The last one goes only when nobody has asked for long.
    let quiet = quiet.max(needed).max(1);
    match (signals.complete_since, quiet < current) {
        (None, _) => (current, Reason::Blind),
        (Some(_), false) => (current, Reason::Enough),
        (Some(_), true) if !watched(window) => (current, Reason::NotYet),
        (Some(_), true) if need.queued() >= current => (current, Reason::Queued),
        (Some(_), true) => (quiet.max(need.queued()), Reason::Shrink),
    }
}
