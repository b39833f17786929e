//! Whether a better map is worth what it costs to get there.

use super::Placement;
use std::fmt;

/// The gain must be this many times the cost: estimates of both are rough, and a move that is undone costs twice.
const MARGIN: f64 = 2.0;

/// What is expected of the time until the next look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// How long it is, seconds.
    pub seconds: f64,
    /// Tokens that the replica will compute in it.
    pub tokens: f64,
    /// Seconds that a rank's experts, all layers together, would be busy for each of these tokens, were all ranks equally
    /// busy.
    pub seconds_per_token: f64,
}

/// What moving costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moving {
    /// Bytes of one expert of one layer, as ranks hold it.
    pub bytes_per_slot: f64,
    /// How fast a rank loads.
    pub bytes_per_second: f64,
    /// What loading beside the work takes from a rank: 0 nothing, 1 all of its time.
    pub disturbance: f64,
    /// What any change costs, however little is loaded, seconds.
    pub seconds_each: f64,
}

/// Both sides, in seconds of the rank that decides: the busiest before, the one that loads most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worth {
    /// Seconds that the busiest rank is less busy in the window, without what may be chance.
    pub gain: f64,
    /// Seconds that loading takes from the rank that loads most.
    pub cost: f64,
    /// The window, seconds.
    pub window: f64,
    /// Whether to do it.
    pub pays: bool,
}

/// Weighs a placement. Not to be asked of one that cannot wait ([`Placement::forced`]) or has no map before it: what it
/// gains is not balance.
pub fn worth(placement: &Placement, window: &Window, moving: &Moving) -> Worth {
    let before = placement.before.map_or(placement.after.balance, |before| before.balance);
    let better = (before - placement.after.balance - placement.chance).max(0.0);
    let gain = window.tokens * window.seconds_per_token * better;
    let mut slots = vec![0_usize; placement.map.ranks()];
    placement.loads.iter().for_each(|load| slots[load.rank] += 1);
    let most = slots.into_iter().max().unwrap_or(0) as f64;
    let loading = most * moving.bytes_per_slot / moving.bytes_per_second;
    let cost = loading * moving.disturbance + moving.seconds_each;
    Worth { gain, cost, window: window.seconds, pays: !placement.loads.is_empty() && gain > cost * MARGIN }
}

impl fmt::Display for Worth {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Worth { gain, cost, window, pays } = self;
        let verdict = if *pays { "worth it" } else { "not worth it" };
        write!(f, "{verdict}: would save {gain:.1} s of the next {window:.0} s and cost {cost:.1} s")
    }
}
