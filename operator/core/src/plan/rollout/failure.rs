//! The last failure of a rank, as status keeps it.

use crate::observed::ObservedPod;
use crate::plan::backoff;
use crate::plan::trouble::{Trouble, ended_trouble, trouble};
use coterie_api::deployment::status::Failure;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// A pod that ended as a whole and is not recorded yet comes first, since its replacement depends on it; then the
/// latest end of a process that the kubelet restarts; then what is recorded already.
pub(super) fn last(
    dead: &[&ObservedPod],
    live: &[&ObservedPod],
    recorded: Option<&Failure>,
    now: Timestamp,
) -> Option<Failure> {
    let is_recorded = |pod: &ObservedPod| recorded.is_some_and(|failure| failure.pod_uid == pod.uid);
    if let Some(pod) = dead.iter().filter(|pod| !is_recorded(pod)).min_by_key(|pod| &pod.name) {
        let cause = trouble(pod);
        let (reason, message) =
            cause.map_or_else(Default::default, |Trouble { reason, message, .. }| (reason, message));
        return Some(backoff::lost_pod(pod, reason, message, recorded, now));
    }
    let latest = live.iter().filter_map(|pod| restarted(pod)).max_by_key(|failure| failure.time.0);
    let newer = |failure: &Failure| {
        let Some(recorded) = recorded else { return true };
        let same =
            failure.pod_uid == recorded.pod_uid && failure.time >= recorded.time && failure != recorded;
        same || failure.time > recorded.time
    };
    let held_back = backoff::remaining(recorded, now).is_some();
    latest.filter(|failure| !held_back && newer(failure)).or_else(|| recorded.cloned())
}

/// The last end of a process that is (to be) restarted in its pod.
fn restarted(pod: &ObservedPod) -> Option<Failure> {
    let termination = pod.last_termination.as_ref()?;
    let Trouble { reason, message, .. } = ended_trouble(pod, termination);
    Some(Failure {
        pod: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        reason,
        message,
        time: Time(termination.finished?),
        count: pod.restarts.max(1),
        retry_after: None,
    })
}
