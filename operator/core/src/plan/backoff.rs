//! How long to wait before something is tried again, and how failures are counted.

use crate::observed::ObservedPod;
use coterie_api::deployment::status::Failure;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The first delay.
pub const FIRST: SignedDuration = SignedDuration::from_secs(10);
/// The longest delay.
pub const LONGEST: SignedDuration = SignedDuration::from_secs(300);
/// A pod that fails after a quiet time as long as this starts a new row.
pub const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// After `failures` in a row: nothing, 10 s, 20 s, … 300 s.
pub fn delay(failures: i32) -> SignedDuration {
    if failures < 1 {
        return SignedDuration::ZERO;
    }
    let doublings = u32::try_from(failures - 1).unwrap_or(0).min(5);
    (FIRST * (1 << doublings)).min(LONGEST)
}

/// How much of the delay after `failure` is left.
pub fn remaining(failure: Option<&Failure>, now: Timestamp) -> Option<SignedDuration> {
    let retry = failure?.retry_after.as_ref()?;
    Some(retry.0.duration_since(now)).filter(|left| left.is_positive())
}

/// The failure of a rank's pod as a whole. Its replacement may come at once, unless the pod was itself such a
/// replacement: a node that refuses or evicts every pod must not be fed without end.
pub fn lost_pod(
    pod: &ObservedPod,
    reason: String,
    message: String,
    previous: Option<&Failure>,
    now: Timestamp,
) -> Failure {
    let in_a_row =
        previous.filter(|p| p.retry_after.is_some() && now.duration_since(p.time.0) < FORGOTTEN_AFTER);
    let count = match in_a_row {
        // Pods that were there before the last failure were lost together with it.
        Some(previous) if pod.created.is_some_and(|created| created < previous.time.0) => previous.count,
        Some(previous) => previous.count.saturating_add(1),
        None => 1,
    };
    failure(pod, reason, message, count, delay(count.saturating_sub(1)), now)
}

/// The failure of an inspect pod; there is always a delay before the next one.
pub fn failed_inspection(
    pod: &ObservedPod,
    reason: String,
    message: String,
    previous: Option<&Failure>,
    now: Timestamp,
) -> Failure {
    let count = previous.filter(|previous| previous.pod == pod.name).map_or(1, |p| p.count.saturating_add(1));
    failure(pod, reason, message, count, delay(count), now)
}

fn failure(
    pod: &ObservedPod,
    reason: String,
    message: String,
    count: i32,
    delay: SignedDuration,
    now: Timestamp,
) -> Failure {
    Failure {
        pod: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        reason,
        message,
        time: Time(now),
        count,
        retry_after: Some(Time(now.saturating_add(delay).unwrap_or(now))),
    }
}
