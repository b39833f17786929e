//! The next expert map of one replica.

use super::load::balance;
use super::places::{first, possible, rebalanced, resized};
use super::{View, all_ready};
use crate::objects::ExpertsConfig;
use crate::observed::{Moved, version_of};
use crate::plan::Steps;
use coterie_api::deployment::Rebalance;
use coterie_api::expert_map::{ExpertMap, VERSION_LIMIT};
use jiff::SignedDuration;

/// Between two moves that only the load calls for.
const REBALANCE_EVERY: SignedDuration = SignedDuration::from_mins(5);

/// What its ConfigMap should say, and what keeps it from saying what is asked for.
pub(super) struct Next {
    pub(super) config: ExpertsConfig,
    pub(super) trouble: Option<String>,
}

impl From<ExpertsConfig> for Next {
    fn from(config: ExpertsConfig) -> Self {
        Next { config, trouble: None }
    }
}

/// `None` if there can be no such map.
pub(super) fn next(view: &View, steps: &mut Steps) -> Option<Next> {
    let target = view.target;
    let width = target.ranks as usize;
    let (Some(map), Some(there)) = (view.map(), view.there) else { return begun(view, width) };
    let asked = target.redundant;
    let unchanged = ExpertsConfig {
        map: map.clone(),
        moved: there.moved.clone(),
        redundant: there.redundant.unwrap_or(asked),
    };
    if let Some(map) = overtaking(view, map) {
        return Some(ExpertsConfig { map, ..unchanged }.into());
    }
    let Some(live) = &view.live else {
        // Nobody goes by it yet.
        let fits = map.ranks() == width && unchanged.redundant == asked;
        return if fits { Some(unchanged.into()) } else { begun(view, width) };
    };
    if !view.is_settled(map) {
        return Some(unchanged.into());
    }
    let ready = |rank: &u32| live.rank(*rank).is_some_and(|pod| pod.ready);
    let ranks = u32::try_from(map.ranks()).unwrap_or(u32::MAX);
    let joined = (ranks..target.ranks).take_while(ready).count();
    let after = width.min(map.ranks() + joined);
    let why = if after != map.ranks() {
        format!("ranks went from {} to {after}", map.ranks())
    } else if unchanged.redundant != asked {
        format!("experts.redundant is {asked} now")
    } else if let Some(possible) = possible(view, after).filter(|possible| map.copies() < *possible) {
        format!("{} copies of experts were held, and there is room for {possible}", map.copies())
    } else {
        return Some(balanced(view, map, steps).unwrap_or(unchanged).into());
    };
    Some(match resized(view, map, after) {
        Ok(after) if after != *map => moved(view, map, after, why).into(),
        Ok(_) => ExpertsConfig { redundant: asked, ..unchanged }.into(),
        // What cannot be placed otherwise stays where it is.
        Err(unplaceable) => Next { config: unchanged, trouble: Some(unplaceable.to_string()) },
    })
}

/// A map for a replica that has none: its version is higher than any that one of its ranks may know.
fn begun(view: &View, width: usize) -> Option<Next> {
    let told = view.pods().iter().map(|pod| version_of(&pod.told.experts));
    let there = view.there.map(|there| version_of(there.content()));
    let version = above(read(view).chain(told).chain(there));
    let map = first(view, width)?.with_version(version).ok()?;
    Some(ExpertsConfig { map, moved: None, redundant: view.target.redundant }.into())
}

/// The same map under a version that every rank takes, where one has read a higher version than the ConfigMap has:
/// somebody set that back, and ranks go by what is newer.
fn overtaking(view: &View, map: &ExpertMap) -> Option<ExpertMap> {
    let version = above(read(view).chain([map.version()]));
    let is_behind = version > map.version().saturating_add(1);
    is_behind.then(|| map.clone().with_version(version).ok()).flatten()
}

/// The versions that ranks have read.
fn read<'a>(view: &'a View) -> impl Iterator<Item = u64> + 'a {
    let reports = view.pods().iter().filter_map(|pod| view.observed.reports.get(&pod.uid));
    reports.map(|report| report.read)
}

/// The version above all of `known` that can be followed itself. What is beyond counts as unknown: whoever goes by that is
/// replaced. After the last of them it begins anew.
fn above(known: impl Iterator<Item = u64>) -> u64 {
    let highest = known.filter(|version| *version < VERSION_LIMIT).max().unwrap_or(0);
    if highest + 1 < VERSION_LIMIT { highest + 1 } else { 1 }
}

/// The load calls for another map, and it is time for one.
fn balanced(view: &View, map: &ExpertMap, steps: &mut Steps) -> Option<ExpertsConfig> {
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
    let (after, why) = rebalanced(view, map, &load.tokens)?;
    Some(moved(view, map, after, why))
}

fn moved(view: &View, before: &ExpertMap, after: ExpertMap, why: String) -> ExpertsConfig {
    let load = view.observed.loads.get(&view.number).filter(|load| load.version == before.version());
    let moved = Moved {
        time: view.now,
        slots: after.loads_from(before),
        why,
        balance: load.and_then(|load| balance(before, &load.tokens)),
    };
    ExpertsConfig { map: after, moved: Some(moved), redundant: view.target.redundant }
}
