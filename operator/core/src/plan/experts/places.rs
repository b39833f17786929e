//! Where the experts of a replica go: what the placement is asked, and what comes of it.

use super::{Shape, View};
use crate::plan::placement::{
    Input, Moving, Placement, Rank, Unplaceable, Window, place, possible_copies, worth,
};
use coterie_api::expert_map::ExpertMap;

/// How long a better map is expected to stay better, seconds.
const WINDOW_SECONDS: f64 = 300.0;
/// How fast a rank reads experts when it computes: decoding waits for memory. An order of magnitude.
const COMPUTE_BYTES_PER_SECOND: f64 = 10e9;
/// How fast it reads them from where the weights are. An order of magnitude.
const LOAD_BYTES_PER_SECOND: f64 = 200e6;
/// What that takes from its work.
const DISTURBANCE: f64 = 0.25;
/// What any change costs, seconds.
const SECONDS_EACH: f64 = 0.5;
/// Of all slots, what one move for balance alone may load: the next move may load as many.
const SHARE_OF_A_MOVE: usize = 8;

/// The first map of a replica.
pub(super) fn first(view: &View, ranks: usize) -> Option<ExpertMap> {
    let shape = view.target.shape;
    // Where memory seems too small for the experts, the capacity plan tells, and the ranks do: here each gets its share.
    let placed = asked(view, ranks, None, None).map(|placement| placement.map);
    placed.ok().or_else(|| ExpertMap::even(1, shape.layers, shape.experts, ranks).ok())
}

/// The map that follows `before` on another number of ranks, or with another number of copies.
pub(super) fn resized(view: &View, before: &ExpertMap, ranks: usize) -> Result<ExpertMap, Unplaceable> {
    let share = slots(view) * ranks.abs_diff(before.ranks()) / ranks.max(1);
    let copies = view.target.shape.layers * view.target.redundant;
    Ok(asked(view, ranks, Some(before), Some(share + copies))?.map)
}

/// Copies that a map of `ranks` ranks can have of those that are asked for; `None` where not even every expert has room.
pub(super) fn possible(view: &View, ranks: usize) -> Option<usize> {
    let Shape { layers, experts } = view.target.shape;
    possible_copies(&room(view, ranks), layers, experts, view.target.redundant).ok()
}

/// Better places for what is asked of the experts, and why; `None` when moving costs more than it gains.
pub(super) fn rebalanced(
    view: &View,
    before: &ExpertMap,
    tokens: &[Vec<u64>],
) -> Option<(ExpertMap, String)> {
    let budget = slots(view).div_ceil(SHARE_OF_A_MOVE);
    // A load of another shape than the map's says nothing about it.
    let placement = asked(view, before.ranks(), Some(before), Some(budget)).ok()?;
    let target = view.target;
    let of_layer = |layer: &Vec<u64>| layer.iter().map(|&tokens| tokens as f64).sum::<f64>();
    let computed =
        tokens.iter().map(of_layer).fold(0.0, f64::max) / f64::from(target.experts_per_token.max(1));
    let stretch = view.observed.settings.load_window.as_secs_f64().max(1.0);
    let used = target.slot_bytes as f64 * f64::from(target.experts_per_token) * target.shape.layers as f64;
    let window = Window {
        seconds: WINDOW_SECONDS,
        tokens: computed * WINDOW_SECONDS / stretch,
        seconds_per_token: used / COMPUTE_BYTES_PER_SECOND / before.ranks() as f64,
    };
    let moving = Moving {
        bytes_per_slot: target.slot_bytes as f64,
        bytes_per_second: LOAD_BYTES_PER_SECOND,
        disturbance: DISTURBANCE,
        seconds_each: SECONDS_EACH,
    };
    let worth = worth(&placement, &window, &moving);
    (worth.pays && placement.map != *before).then(|| (placement.map, format!("balance: {worth}")))
}

fn asked(
    view: &View,
    ranks: usize,
    current: Option<&ExpertMap>,
    budget: Option<usize>,
) -> Result<Placement, Unplaceable> {
    let shape = view.target.shape;
    let load = view.observed.loads.get(&view.number);
    let counted = load.filter(|load| {
        load.tokens.len() == shape.layers && load.tokens.iter().all(|layer| layer.len() == shape.experts)
    });
    // A further rank gets its share before anything was counted.
    let unknown = || vec![vec![1; shape.experts]; shape.layers];
    place(&Input {
        tokens: &counted.map_or_else(unknown, |load| load.tokens.clone()),
        ranks: &room(view, ranks),
        redundant: view.target.redundant,
        groups: 1,
        current,
        budget,
        together: None,
    })
}

/// Every rank with its node; one that has none yet counts as alone on its node.
fn room(view: &View, ranks: usize) -> Vec<Rank> {
    let mut nodes: Vec<&str> = view.pods().iter().filter_map(|pod| pod.node.as_deref()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let node_of = |rank: usize| {
        let pod = view.live.as_ref()?.rank(u32::try_from(rank).ok()?)?;
        nodes.iter().position(|node| Some(*node) == pod.node.as_deref())
    };
    (0..ranks)
        .map(|rank| Rank { node: node_of(rank).unwrap_or(nodes.len() + rank), slots: view.target.slots })
        .collect()
}

fn slots(view: &View) -> usize {
    view.target.shape.layers * (view.target.shape.experts + view.target.redundant)
}
