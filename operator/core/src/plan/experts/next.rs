//! The next expert map of one replica.

use super::load::balance;
use super::places::{places, rebalance};
use super::{View, all_ready};
use crate::observed::{Moved, version_of};
use crate::plan::Steps;
use coterie_api::deployment::Rebalance;
use coterie_api::expert_map::ExpertMap;
use jiff::SignedDuration;

/// Between two moves that only the load calls for.
const REBALANCE_EVERY: SignedDuration = SignedDuration::from_mins(5);

/// The map that its ranks should go by.
pub(super) struct Next {
    pub(super) map: ExpertMap,
    /// How it came about, if it is not the first.
    pub(super) moved: Option<Moved>,
}

/// `None` if the model has no experts, or more of something than a map may have: it then serves by one rank.
pub(super) fn next(view: &View, steps: &mut Steps) -> Option<Next> {
    let width = view.target.ranks as usize;
    let Some(map) = view.map() else { return first(view, width) };
    let unchanged = Next { map: map.clone(), moved: view.there.and_then(|there| there.moved.clone()) };
    let Some(live) = &view.live else {
        // Nobody goes by it yet.
        let fits = map.ranks() == width && copies(map) == wanted_copies(view, width);
        return if fits { Some(unchanged) } else { first(view, width) };
    };
    if !view.is_settled(map) {
        return Some(unchanged);
    }
    let ready = |rank: &u32| live.rank(*rank).is_some_and(|pod| pod.ready);
    let ranks = u32::try_from(map.ranks()).unwrap_or(u32::MAX);
    let joined = (ranks..view.target.ranks).take_while(ready).count();
    let version = map.version() + 1;
    let (after, why) = if map.ranks() > width {
        (places(view, width, version), format!("ranks went from {} to {width}", map.ranks()))
    } else if joined > 0 {
        let wider = map.ranks() + joined;
        (places(view, wider, version), format!("ranks went from {} to {wider}", map.ranks()))
    } else if copies(map) != wanted_copies(view, map.ranks()) {
        let redundant = view.deployment.experts.redundant;
        let after = places(view, map.ranks(), version).filter(|after| copies(after) != copies(map));
        (after, format!("experts.redundant is {redundant} now"))
    } else {
        return Some(rebalanced(view, map, steps).unwrap_or(unchanged));
    };
    // What cannot be placed otherwise stays where it is.
    Some(after.map_or(unchanged, |after| moved(view, map, after, why)))
}

/// A map for a replica that has none: its version is higher than any that one of its ranks may know.
fn first(view: &View, width: usize) -> Option<Next> {
    let read = view.pods().iter().filter_map(|pod| view.observed.reports.get(&pod.uid));
    let told = view.pods().iter().map(|pod| version_of(&pod.told.experts));
    let there = view.there.map(|there| version_of(there.content()));
    let known = read.map(|report| report.read).chain(told).chain(there).max().unwrap_or(0);
    Some(Next { map: places(view, width, known + 1)?, moved: None })
}

/// Slots beyond one for every expert, of all layers.
pub(super) fn copies(map: &ExpertMap) -> usize {
    let slots: usize = (0..map.ranks()).map(|rank| map.slots_of(rank)).sum();
    slots - map.layers() * map.experts()
}

/// No rank holds an expert twice, so there cannot be more copies than other ranks.
fn wanted_copies(view: &View, ranks: usize) -> usize {
    let shape = view.target.shape;
    let redundant = view.deployment.experts.redundant as usize;
    shape.layers * redundant.min(shape.experts * ranks.saturating_sub(1))
}

/// The load calls for another map, and it is time for one.
fn rebalanced(view: &View, map: &ExpertMap, steps: &mut Steps) -> Option<Next> {
    let load = view.observed.loads.get(&view.number).filter(|load| load.version == map.version())?;
    if view.deployment.experts.rebalance != Rebalance::Auto || !all_ready(view, map) {
        return None;
    }
    if let Some(last) = view.there.and_then(|there| there.moved.as_ref()) {
        let again = last.time.saturating_add(REBALANCE_EVERY).unwrap_or(view.now);
        if again > view.now {
            steps.look_again(again.duration_since(view.now));
            return None;
        }
    }
    let (after, why) = rebalance(view, map, &load.tokens)?;
    Some(moved(view, map, after, why))
}

fn moved(view: &View, before: &ExpertMap, after: ExpertMap, why: String) -> Next {
    let load = view.observed.loads.get(&view.number).filter(|load| load.version == before.version());
    let moved = Moved {
        time: view.now,
        slots: after.loads_from(before),
        why,
        balance: load.and_then(|load| balance(before, &load.tokens)),
    };
    Next { map: after, moved: Some(moved) }
}
