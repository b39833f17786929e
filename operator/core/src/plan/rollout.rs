//! Which ranks there should be next.
//!
//! Every snapshot is looked at anew; nothing is remembered but the last failure. The unit is the replica: its ranks come
//! and go together. With `n` wanted replicas:
//! - replicas of the current revision are made until there are `n`; one that goes away is replaced at once, unless
//!   [`STARTING_AT_ONCE`] ranks are not ready already: they pull images and read weights, and an order for a thousand
//!   replicas must not take registry, storage and scheduler from everybody else;
//! - a rank that a live replica lacks is made in its place, under its name;
//! - replicas of another revision of which no rank is ready serve nobody and are deleted at once; those that serve are
//!   taken out of service (`retire`), but only as many as are ready beyond `n`;
//! - while another revision is there, live replicas and its draining ones are at most `n + 1`: one is surged, waited
//!   for, and then one is drained;
//! - too many replicas: those that are not ready go first, then those with the fewest requests, then the highest numbers;
//! - too few, and one of the current revision drains: it is recalled before another is made;
//! - a rank that its replica has too many goes when the others have taken its experts over.
//!
//! A replica is ready when all of its ranks are; one of another revision, whose width nobody knows, when one is.
//! Without a target (weights unknown, or nothing could work) nothing is made or replaced; only scale-down goes on.

mod failure;
mod make;
mod retire;

use super::experts::{self, Shape};
use super::replica::{Replica, replicas};
use super::trouble::{Trouble, trouble, waits_for_image};
use super::{Steps, backoff};
use crate::observed::{Free, Observed, ObservedPod, Phase, Role};
use crate::validate::Deployment;
use coterie_api::deployment::status::Failure;
use coterie_api::launch::RankLaunch;
use jiff::{SignedDuration, Timestamp};
use make::Maker;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Most live ranks of the current revision that are not ready, as far as it is our doing and one replica has no more;
/// more are made as these get ready.
const STARTING_AT_ONCE: usize = 25;
/// A pod that is still there so long after its grace period is on a node that does not answer; nobody waits for it.
const OVERDUE: SignedDuration = SignedDuration::from_secs(30);

/// What new ranks are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Revision of the spec.
    pub revision: String,
    /// Ranks of a replica.
    pub ranks: u32,
    /// What there is for them to share.
    pub shape: Shape,
    /// Slots of each layer beyond one for every expert, all ranks together.
    pub redundant: usize,
    /// Slots that the memory of one rank has room for, all layers together.
    pub slots: usize,
    /// Bytes of one slot.
    pub slot_bytes: u64,
    /// Slots that one rank may take over from lost ones, if its memory is limited.
    pub adopt_limit: Option<u32>,
    /// Experts of one layer that a token uses.
    pub experts_per_token: u32,
    /// Their command line, but for their share of the experts.
    pub launch: RankLaunch,
    /// What each requests.
    pub demand: Free,
}

/// Where the replicas stand.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutPlan {
    /// The current revision, if there is a target.
    pub revision: Option<String>,
    /// Ranks of a replica of that revision.
    pub width: u32,
    /// Replicas with ranks that are neither ended nor being deleted, of any revision, and not out of service.
    pub live: usize,
    /// Those that are ready.
    pub ready: usize,
    /// Live replicas of the current revision.
    pub updated: usize,
    /// Those that are ready.
    pub updated_ready: usize,
    /// Replicas that are out of service, and those of another revision that are being deleted: they may still have
    /// requests.
    pub draining: usize,
    /// The live ones, rank by rank.
    pub ranks: RankCounts,
    /// Numbers of the live replicas of the current revision that stay.
    pub kept: Vec<u32>,
    /// Numbers of the replicas that are wanted and have no rank yet, whether they may be made now or not.
    pub missing: Vec<u32>,
    /// What happens now.
    pub step: Step,
    /// What keeps a live rank of the current revision (of any, without a target) from being ready.
    pub trouble: Option<Trouble>,
    /// The last failure of a rank, to be kept in status.
    pub failure: Option<Failure>,
}

/// Live ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RankCounts {
    /// Those that are ready, of any revision.
    pub ready: usize,
    /// Those of the current revision, as far as its replicas have so many.
    pub updated: usize,
    /// Those of the current revision that are ready.
    pub updated_ready: usize,
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
    /// A rank that its replica has too many keeps its experts until the others have taken them over.
    HandOver,
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
    let width = target.map_or(1, |target| target.ranks);
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

    let is_current = |revision: &str| target.is_some_and(|target| revision == target.revision);
    let image = target.map_or("", |target| image(target, &live, observed));
    let (stuck, live): (Vec<_>, Vec<_>) = live.into_iter().partition(|pod| {
        is_current(&pod.revision) && !pod.ready && pod.image != image && waits_for_image(pod)
    });
    for pod in stuck {
        steps.delete(pod, "its image cannot be pulled, and there is another one now");
    }
    let live = replicas(&live);
    let is_ready = |replica: &Replica| {
        if is_current(replica.revision) { replica.is_complete(width) } else { replica.ready_ranks() > 0 }
    };
    let (mut drainers, mut live): (Vec<Replica>, Vec<Replica>) =
        live.into_iter().partition(|replica| retire::cordoned(replica).is_some());
    let is_recallable =
        |replica: &Replica| (target.is_none() || is_current(replica.revision)) && is_ready(replica);
    let serving = live.iter().filter(|replica| target.is_none() || is_current(replica.revision)).count();
    drainers
        .sort_by_key(|replica| (is_recallable(replica), retire::cordoned(replica), Reverse(replica.number)));
    for _ in serving..wanted {
        let Some(last) = drainers.pop_if(|replica| is_recallable(replica)) else { break };
        retire::recall(&last, steps);
        live.push(last);
    }
    for replica in &drainers {
        retire::drain(replica, deployment, observed, now, steps);
    }
    let (mut updated, old): (Vec<&Replica>, Vec<&Replica>) = match target {
        Some(_) => live.iter().partition(|replica| is_current(replica.revision)),
        // Nothing is replaced without a target: what is there counts as wanted.
        None => (live.iter().collect(), Vec::new()),
    };
    let ready = live.iter().filter(|replica| is_ready(replica)).count();
    let updated_ready = updated.iter().filter(|replica| is_ready(replica)).count();

    let (mut old_ready, old_unready): (Vec<_>, Vec<_>) =
        old.iter().copied().partition(|replica| is_ready(replica));
    for replica in &old_unready {
        steps.delete_all(&replica.pods, "it is of an old revision and serves nobody");
    }
    old_ready.sort_by_key(|replica| (replica.ready_ranks(), Reverse(replica.number)));
    let drained = ready.saturating_sub(wanted).min(old_ready.len());
    for replica in &old_ready[..drained] {
        retire::retire(replica, "it is of an old revision", now, steps);
    }
    // Those that are not ready come first, so a ready one only goes when more than the wanted ones are ready.
    updated.sort_by_key(|replica| {
        (is_ready(replica), replica.ready_ranks(), replica.requests(observed), Reverse(replica.number))
    });
    let removed = updated.len().saturating_sub(wanted);
    for replica in &updated[..removed] {
        retire::retire(replica, "fewer replicas are asked for", now, steps);
    }
    let mut kept: Vec<&Replica> = updated[removed..].to_vec();
    kept.sort_by_key(|replica| replica.number);

    let ending = draining(ranks().filter(|pod| !is_current(&pod.revision)), &live, now);
    let draining = ending.len() + drainers.iter().filter(|replica| !is_current(replica.revision)).count();
    let missing = if target.is_some() { wanted.saturating_sub(updated.len()) } else { 0 };
    let room = if old.is_empty() && draining == 0 {
        missing
    } else {
        (wanted + 1).saturating_sub(live.len() + draining)
    };
    let back_off = backoff::remaining(failure.as_ref(), now);
    let starting = updated.iter().flat_map(|replica| &replica.pods).filter(|pod| !pod.ready).count();
    let mut maker = Maker { deployment, target, image, observed, now, starting };
    let numbers: Vec<u32> = maker.free_numbers().take(missing).collect();
    let (mut filled, mut created, mut freed, mut surplus) = (0, 0, 0, 0);
    if let Some(target) = target {
        for replica in &kept {
            let (handed_over, beyond): (Vec<_>, usize) =
                experts::handed_over(replica, target.ranks, observed);
            for pod in &handed_over {
                retire::leave(pod, observed, "its replica has fewer ranks now", steps);
            }
            freed += handed_over.len();
            surplus += beyond - handed_over.len();
        }
        if back_off.is_none() {
            filled = kept.iter().map(|replica| maker.fill(replica, steps)).sum();
            created = numbers.iter().take(room).take_while(|number| maker.begin(**number, steps)).count();
        }
    }
    if missing > created {
        let next = ending.iter().min().map(|overdue| overdue.duration_since(now));
        back_off.into_iter().chain(next).for_each(|after| steps.look_again(after));
    }
    let lacking = kept.iter().any(|replica| !replica.missing(width).is_empty());
    if lacking {
        back_off.into_iter().for_each(|after| steps.look_again(after));
    }

    let step = if filled > 0 {
        Step::Create
    } else if created > 0 {
        if old.is_empty() { Step::Create } else { Step::Surge }
    } else if drained > 0 || !old_unready.is_empty() {
        Step::Drain
    } else if removed > 0 || freed > 0 {
        Step::ScaleDown
    } else if let Some(lack) = lack {
        lack
    } else if (missing > 0 || lacking) && back_off.is_some() {
        Step::BackOff
    } else if missing > 0 && room == 0 {
        Step::WaitForDrain
    } else if updated_ready < wanted {
        Step::WaitForReady
    } else if surplus > 0 {
        Step::HandOver
    } else if ending.is_empty() && drainers.is_empty() && old.is_empty() {
        Step::Complete
    } else {
        Step::WaitForDrain
    };
    updated.sort_by_key(|replica| replica.number);
    let within = target.map_or(u32::MAX, |target| target.ranks);
    let updated_ranks = updated.iter().flat_map(|replica| replica.pods.iter().copied());
    let updated_ranks: Vec<&ObservedPod> = updated_ranks.filter(|pod| pod.rank_or_only() < within).collect();
    RolloutPlan {
        revision: target.map(|target| target.revision.clone()),
        width,
        live: live.len(),
        ready,
        updated: updated.len(),
        updated_ready,
        draining: ending.len() + drainers.len(),
        ranks: RankCounts {
            ready: live.iter().map(Replica::ready_ranks).sum(),
            updated: updated_ranks.len(),
            updated_ready: updated_ranks.iter().filter(|pod| pod.ready).count(),
        },
        kept: kept.iter().filter_map(|replica| replica.number).collect(),
        missing: numbers,
        step,
        trouble: updated_ranks.iter().filter(|pod| !pod.ready).find_map(|pod| trouble(pod)),
        failure,
    }
}

/// When each replica of another revision that only ends now is overdue; those that are, are left out.
fn draining<'a>(
    old: impl Iterator<Item = &'a ObservedPod>,
    live: &[Replica],
    now: Timestamp,
) -> Vec<Timestamp> {
    let mut ends: BTreeMap<(Option<u32>, &str), Timestamp> = BTreeMap::new();
    for pod in old {
        let Some(end) = pod.terminating else { continue };
        let overdue = end.saturating_add(OVERDUE).unwrap_or(end);
        let latest = ends.entry((pod.replica, &pod.revision)).or_insert(overdue);
        *latest = overdue.max(*latest);
    }
    let is_live = |number, revision: &str| live.iter().any(|r| r.number == number && r.revision == revision);
    let ends = ends.into_iter().filter(|((number, revision), _)| !is_live(*number, revision));
    ends.map(|(_, overdue)| overdue).filter(|overdue| *overdue > now).collect()
}

/// A new rank runs what its ready siblings of the same revision run, so that an upgrade of the operator does not mix
/// versions in one deployment; without one, what this operator was started with.
fn image<'a>(target: &Target, live: &[&'a ObservedPod], observed: &'a Observed) -> &'a str {
    let sibling =
        live.iter().filter(|pod| pod.ready && pod.revision == target.revision).min_by_key(|pod| pod.replica);
    // Without an image for its device no rank is made: the plan says so.
    sibling.map_or(observed.settings.image_for(target.launch.device).unwrap_or_default(), |pod| &pod.image)
}

#[cfg(test)]
mod tests;
