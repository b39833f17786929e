//! How a replica leaves: cordon, drain, confirm that it is empty, delete.
//!
//! A cordoned replica gets no new requests, because the clients' Service does not select it any more; what it has, it
//! finishes. Until it is deleted it can be recalled, which is faster than any replica that is made.

use crate::observed::{Observed, ObservedPod};
use crate::plan::replica::Replica;
use crate::plan::{Annotation, Steps};
use crate::validate::Deployment;
use coterie_api::name;
use jiff::{SignedDuration, Timestamp};

/// Proxies and routers hear of a cordon by a watch: until then new requests may come.
const HEARD_OF: SignedDuration = SignedDuration::from_secs(3);
/// A rank that does not tell its load is deleted once everybody has heard of the cordon, and drains by itself as it ends:
/// nothing is lost by that but the chance to recall it.
const UNTOLD: SignedDuration = HEARD_OF;
/// What a rank gets to end that had its time to drain.
const LAST_SECONDS: u32 = 10;

/// Takes a replica out of service. One of which nothing is ready serves nobody, and goes at once.
pub(super) fn retire(replica: &Replica, why: &'static str, now: Timestamp, steps: &mut Steps) {
    if replica.ready_ranks() == 0 {
        return steps.delete_all(&replica.pods, why);
    }
    for pod in &replica.pods {
        steps.annotate(serving(pod, false, Some(now.to_string())));
    }
}

/// Deletes a rank that is not needed any more. One that is not ready and does not report hangs: its own grace period, in
/// which others end their requests, would pass for nothing.
pub(super) fn leave(pod: &ObservedPod, observed: &Observed, why: &'static str, steps: &mut Steps) {
    if pod.ready || observed.reports.contains_key(&pod.uid) {
        steps.delete(pod, why);
    } else {
        steps.delete_within(pod, LAST_SECONDS, why);
    }
}

/// Puts a cordoned replica back into service.
pub(super) fn recall(replica: &Replica, steps: &mut Steps) {
    for pod in replica.pods.iter().filter(|pod| pod.cordoned.is_some()) {
        steps.annotate(serving(pod, true, None));
    }
}

/// Since when a replica is out of service, if it is.
pub(super) fn cordoned(replica: &Replica) -> Option<Timestamp> {
    replica.pods.iter().filter_map(|pod| pod.cordoned).max()
}

/// Deletes a cordoned replica when it is empty, or when it had its time.
pub(super) fn drain(
    replica: &Replica,
    deployment: &Deployment,
    observed: &Observed,
    now: Timestamp,
    steps: &mut Steps,
) {
    let since = cordoned(replica).unwrap_or(now);
    let elapsed = now.duration_since(since);
    let patience = SignedDuration::from_secs(deployment.drain_seconds.into());
    let told: Vec<_> = replica.pods.iter().map(|pod| observed.occupancy.get(&pod.uid)).collect();
    let is_empty = |at: Timestamp| at.duration_since(since) >= HEARD_OF;
    if replica.ready_ranks() == 0 {
        steps.delete_all(&replica.pods, "it is out of service and not ready");
    } else if told.iter().all(|told| told.is_some_and(|told| told.requests == 0 && is_empty(told.at))) {
        steps.delete_all(&replica.pods, "it is out of service and empty");
    } else if elapsed >= patience {
        for pod in &replica.pods {
            steps.delete_within(pod, LAST_SECONDS, "its time to drain is over");
        }
    } else if told.contains(&None) && elapsed >= UNTOLD {
        steps.delete_all(&replica.pods, "it is out of service and does not tell its load");
    } else {
        let next = if told.contains(&None) { UNTOLD } else { patience };
        steps.look_again(next - elapsed);
    }
}

fn serving(pod: &ObservedPod, serves: bool, since: Option<String>) -> Annotation {
    Annotation {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        resource_version: pod.resource_version.clone(),
        labels: [(name::LABEL_SERVING.to_owned(), serves.to_string())].into(),
        annotations: [(name::ANNOTATION_CORDONED.to_owned(), since)].into(),
    }
}
