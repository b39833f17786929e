//! Which ranks there should be next.
//!
//! Every snapshot is looked at anew; nothing is remembered but the last failure. With `n` wanted replicas:
//! - ranks of the current revision are made until there are `n`; a rank that goes away is replaced at once, unless
//!   [`STARTING_AT_ONCE`] are not ready already: they pull images and read weights, and an order for a thousand
//!   replicas must not take registry, storage and scheduler from everybody else;
//! - ranks of another revision that are not ready serve nobody and are deleted at once; ready ones are drained, but
//!   only as many as are ready beyond `n`;
//! - while another revision is there, live ranks and its draining ones are at most `n + 1`: one is surged, waited for,
//!   and then one is drained;
//! - too many ranks: those that are not ready go first, then the highest numbers.
//!
//! Without a target (weights unknown, or nothing could work) nothing is made or replaced; only scale-down goes on.

mod failure;

use super::trouble::{Trouble, trouble, waits_for_image};
use super::{Steps, backoff};
use crate::objects::{RankPod, rank_pod, rank_pod_name};
use crate::observed::{Free, Observed, ObservedPod, Phase, Role};
use crate::validate::Deployment;
use coterie_api::deployment::status::Failure;
use coterie_api::launch::RankLaunch;
use jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;

/// Most live ranks of the current revision that are not ready, as far as it is our doing; more are made as these get
/// ready.
const STARTING_AT_ONCE: usize = 25;
/// A pod that is still there so long after its grace period is on a node that does not answer; nobody waits for it.
const OVERDUE: SignedDuration = SignedDuration::from_secs(30);

/// What new ranks are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Revision of the spec.
    pub revision: String,
    /// Their command line.
    pub launch: RankLaunch,
    /// What each requests.
    pub demand: Free,
}

/// Where the replicas stand.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutPlan {
    /// The current revision, if there is a target.
    pub revision: Option<String>,
    /// Ranks that are neither ended nor being deleted, of any revision.
    pub live: usize,
    /// Those that are ready.
    pub ready: usize,
    /// Live ranks of the current revision.
    pub updated: usize,
    /// Those that are ready.
    pub updated_ready: usize,
    /// Ranks of another revision that are being deleted and may still have requests.
    pub draining: usize,
    /// What happens now.
    pub step: Step,
    /// What keeps a live rank of the current revision (of any, without a target) from being ready.
    pub trouble: Option<Trouble>,
    /// The last failure of a rank, to be kept in status.
    pub failure: Option<Failure>,
}

/// What happens now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wanted ranks are missing, but the last ones failed too soon.
    BackOff,
    /// There is nothing to make ranks from.
    Blocked,
    /// All ranks are there, ready, and of the current revision.
    Complete,
    /// Ranks are made.
    Create,
    /// Ranks of another revision are taken out of service.
    Drain,
    /// Ranks that are too many are taken out of service.
    ScaleDown,
    /// A rank of the current revision is made beside older ones.
    Surge,
    /// A rank is still ending.
    WaitForDrain,
    /// What ranks are made from is being found out.
    WaitForInspection,
    /// A rank is still starting.
    WaitForReady,
}

/// Without a target, the step that tells why there is none.
pub(super) fn plan(
    deployment: &Deployment,
    target: Result<&Target, Step>,
    observed: &Observed,
    now: Timestamp,
    steps: &mut Steps,
) -> RolloutPlan {
    let wanted = deployment.replicas;
    let (target, lack) = (target.ok(), target.err());
    let ranks = || observed.pods.iter().filter(|pod| pod.role == Some(Role::Rank));
    let (dead, live): (Vec<_>, Vec<_>) = ranks()
        .filter(|pod| pod.terminating.is_none())
        .partition(|pod| matches!(pod.phase, Phase::Failed | Phase::Succeeded));

    let recorded = observed.status.last_failure.as_ref();
    let failure = failure::last(&dead, &live, recorded, now);
    // What is deleted is in status already, so an operator that is killed here does not forget why.
    for pod in dead.iter().filter(|pod| recorded.is_some_and(|failure| failure.pod_uid == pod.uid)) {
        steps.delete(pod, "it ended");
    }

    let is_updated = |pod: &ObservedPod| target.is_some_and(|target| pod.revision == target.revision);
    let image = target.map_or("", |target| image(target, &live, observed));
    let (stuck, live): (Vec<_>, Vec<_>) = live
        .into_iter()
        .partition(|pod| is_updated(pod) && !pod.ready && pod.image != image && waits_for_image(pod));
    for pod in stuck {
        steps.delete(pod, "its image cannot be pulled, and there is another one now");
    }
    let (mut updated, old): (Vec<_>, Vec<_>) = match target {
        Some(_) => live.iter().partition(|pod| is_updated(pod)),
        // Nothing is replaced without a target: what is there counts as wanted.
        None => (live.clone(), Vec::new()),
    };
    let ready = live.iter().filter(|pod| pod.ready).count();
    let updated_ready = updated.iter().filter(|pod| pod.ready).count();

    let (mut old_ready, old_unready): (Vec<_>, Vec<_>) = old.iter().copied().partition(|pod| pod.ready);
    for pod in &old_unready {
        steps.delete(pod, "it is of an old revision and serves nobody");
    }
    old_ready.sort_by_key(|pod| Reverse(pod.replica));
    let drained = ready.saturating_sub(wanted).min(old_ready.len());
    for pod in &old_ready[..drained] {
        steps.delete(pod, "it is of an old revision");
    }
    // Those that are not ready come first, so a ready one only goes when more than the wanted ones are ready.
    updated.sort_by_key(|pod| (pod.ready, Reverse(pod.replica)));
    let removed = updated.len().saturating_sub(wanted);
    for pod in &updated[..removed] {
        steps.delete(pod, "fewer replicas are asked for");
    }

    let ending = ranks().filter(|pod| !is_updated(pod)).filter_map(|pod| pod.terminating);
    let draining: Vec<Timestamp> = ending
        .map(|end| end.saturating_add(OVERDUE).unwrap_or(end))
        .filter(|overdue| *overdue > now)
        .collect();
    let missing = if target.is_some() { wanted.saturating_sub(updated.len()) } else { 0 };
    let room = if old.is_empty() && draining.is_empty() {
        missing
    } else {
        (wanted + 1).saturating_sub(live.len() + draining.len())
    };
    let back_off = backoff::remaining(failure.as_ref(), now);
    let may_start = STARTING_AT_ONCE.saturating_sub(updated.len() - updated_ready);
    let created = if back_off.is_some() { 0 } else { missing.min(room).min(may_start) };
    if let Some(target) = target {
        create(deployment, target, image, created, observed, steps);
    }
    if missing > created {
        let next = draining.iter().min().map(|overdue| overdue.duration_since(now));
        back_off.into_iter().chain(next).for_each(|after| steps.look_again(after));
    }

    let step = if created > 0 {
        if old.is_empty() { Step::Create } else { Step::Surge }
    } else if drained > 0 || !old_unready.is_empty() {
        Step::Drain
    } else if removed > 0 {
        Step::ScaleDown
    } else if let Some(lack) = lack {
        lack
    } else if missing > 0 && back_off.is_some() {
        Step::BackOff
    } else if missing > 0 && room == 0 {
        Step::WaitForDrain
    } else if updated_ready < wanted {
        Step::WaitForReady
    } else if draining.is_empty() && old.is_empty() {
        Step::Complete
    } else {
        Step::WaitForDrain
    };
    updated.sort_by_key(|pod| pod.replica);
    RolloutPlan {
        revision: target.map(|target| target.revision.clone()),
        live: live.len(),
        ready,
        updated: updated.len(),
        updated_ready,
        draining: draining.len(),
        step,
        trouble: updated.iter().filter(|pod| !pod.ready).find_map(|pod| trouble(pod)),
        failure,
    }
}

/// A new rank runs what its ready siblings of the same revision run, so that an upgrade of the operator does not mix
/// versions in one deployment; without one, what this operator was started with.
fn image<'a>(target: &Target, live: &[&'a ObservedPod], observed: &'a Observed) -> &'a str {
    let sibling =
        live.iter().filter(|pod| pod.ready && pod.revision == target.revision).min_by_key(|pod| pod.replica);
    sibling.map_or(&observed.settings.runtime_image, |pod| &pod.image)
}

/// Makes ranks with the smallest numbers whose names are free; a pod that is still ending has its name.
fn create(
    deployment: &Deployment,
    target: &Target,
    image: &str,
    count: usize,
    observed: &Observed,
    steps: &mut Steps,
) {
    let is_free = |replica: &u32| {
        let name = rank_pod_name(&deployment.name, *replica);
        !observed.taken_names.contains(&name) && observed.pods.iter().all(|pod| pod.name != name)
    };
    for replica in (0..).filter(is_free).take(count) {
        steps.create(rank_pod(&RankPod {
            deployment,
            replica,
            revision: &target.revision,
            image,
            settings: &observed.settings,
            launch: &target.launch,
            demand: target.demand,
        }));
    }
}

#[cfg(test)]
mod tests;
