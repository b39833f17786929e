//! Ranks that went astray: the map that they claim to have read has a version that no map can follow, so they will take
//! none any more. Their processes are replaced, one after the other; a new one begins with the map that there is.

use super::{Phase, View};
use crate::observed::ObservedPod;
use crate::plan::Steps;
use coterie_api::expert_map::{ExpertMap, VERSION_LIMIT};
use jiff::SignedDuration;

/// A pod is left alone for so long after it was made: one that goes astray again and again is not replaced all the time.
const PATIENCE: SignedDuration = SignedDuration::from_mins(1);

/// Deletes the first that went astray, once all others are ready or had their time.
pub(super) fn replace(view: &View, map: &ExpertMap, steps: &mut Steps) {
    let Some(pod) = strays(view, map).next() else { return };
    let replica = |other: &&ObservedPod| other.replica == Some(view.number);
    let ends = view.observed.pods.iter().filter(replica).any(|other| other.terminating.is_some());
    let lacks = view.live.as_ref().is_none_or(|live| !live.missing(view.target.ranks).is_empty());
    let young = |pod: &ObservedPod| view.now.duration_since(pod.created.unwrap_or(view.now)) < PATIENCE;
    let starts = view.pods().iter().any(|other| !other.ready && other.phase != Phase::Failed && young(other));
    if ends || lacks {
        return;
    }
    if starts || young(pod) {
        return steps.look_again(PATIENCE);
    }
    steps.delete(pod, "the expert map that it claims to have read can be followed by none");
}

/// For status.
pub(super) fn told(view: &View, map: &ExpertMap) -> Option<String> {
    let pod = strays(view, map).next()?;
    let read = view.observed.reports.get(&pod.uid)?.read;
    Some(format!(
        "rank {} says that it read expert map {read}, and no map can follow that; it is replaced, wait",
        pod.rank_or_only()
    ))
}

fn strays<'a>(view: &'a View, map: &'a ExpertMap) -> impl Iterator<Item = &'a ObservedPod> {
    let astray = |pod: &ObservedPod| {
        let read = view.observed.reports.get(&pod.uid).map_or(0, |report| report.read);
        read > map.version() && read.saturating_add(1) >= VERSION_LIMIT
    };
    let stays = view.pods().iter().copied().filter(|pod| pod.rank_or_only() < view.target.ranks);
    stays.filter(move |pod| astray(pod))
}
