//! What the weights are: an inspect pod looks at the source once, and status keeps what it found.
//!
//! A source is known by its hash, which includes the restart annotation: who replaces the files in a claim and asks
//! for a restart gets them inspected again. The image of the runtime is no part of it, so an upgrade of the operator
//! inspects nothing.

use super::backoff;
use super::trouble::{Kind, Trouble, trouble, waits_for_image};
use super::{Finding, State, Steps};
use crate::fingerprint::fingerprint;
use crate::objects::{inspect_pod, inspect_pod_name, inspect_revision, model_dir};
use crate::observed::{ClaimState, Observed, ObservedPod, Phase, Role};
use crate::validate::{Deployment, Source};
use coterie_api::condition::reason;
use coterie_api::deployment::status::{Failure, WeightsStatus};
use coterie_api::launch::Inspection;
use jiff::{SignedDuration, Timestamp};

/// What has to appear or go away is looked for this often, should no watch tell.
const LOOK_INTERVAL: SignedDuration = SignedDuration::from_secs(10);

/// What is known of the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct InspectionPlan {
    /// Hash of the source that is asked for.
    pub source_hash: String,
    /// What it holds, once that is known.
    pub weights: Option<WeightsStatus>,
    /// What `Valid` should say, as far as the weights are concerned.
    pub finding: Finding,
    /// The last failure to inspect this source; to be kept in status.
    pub failure: Option<Failure>,
}

/// Hash of the source and the restart annotation.
pub fn source_hash(deployment: &Deployment) -> String {
    let location = match &deployment.source {
        Source::Image { reference, .. } => ["image", reference.as_str(), ""],
        Source::Claim { name, path } => ["claim", name.as_str(), path.as_deref().unwrap_or("")],
    };
    fingerprint(&(location, &deployment.restart), 12)
}

pub(super) fn plan(
    deployment: &Deployment,
    observed: &Observed,
    now: Timestamp,
    steps: &mut Steps,
) -> InspectionPlan {
    let source_hash = source_hash(deployment);
    let pod_name = inspect_pod_name(&deployment.name, &source_hash);
    let mut current = None;
    for pod in observed.pods.iter().filter(|pod| pod.role == Some(Role::Inspect)) {
        if pod.name == pod_name {
            current = Some(pod);
        } else if pod.terminating.is_none() {
            steps.delete(pod, "it inspects a source that is no longer asked for");
        }
    }
    let kept = observed.status.weights.clone().filter(|weights| weights.source_hash == source_hash);
    let known = |weights: WeightsStatus| InspectionPlan {
        source_hash: source_hash.clone(),
        finding: accepted(&weights),
        weights: Some(weights),
        failure: None,
    };
    if let Some(weights) = kept {
        if let Some(pod) = current.filter(|pod| pod.terminating.is_none()) {
            steps.delete(pod, "its findings are kept in status");
        }
        return known(weights);
    }
    let unknown = |finding, failure| InspectionPlan {
        source_hash: source_hash.clone(),
        weights: None,
        finding,
        failure,
    };
    let previous = observed.status.last_inspect_failure.clone().filter(|failure| failure.pod == pod_name);
    let Some(pod) = current.filter(|pod| pod.terminating.is_none()) else {
        let finding = begin(deployment, observed, current, previous.as_ref(), now, &source_hash, steps);
        return unknown(finding, previous);
    };
    // Its one process is never restarted: once that has ended there is nothing to wait for, whatever the phase says.
    if pod.last_termination.is_some() || matches!(pod.phase, Phase::Succeeded | Phase::Failed) {
        return match report(pod) {
            Ok(inspection) => known(WeightsStatus { source_hash: source_hash.clone(), inspection }),
            Err(trouble) => {
                // Counted once, and kept until its time is over, so that its logs can be read.
                let failure =
                    previous.clone().filter(|recorded| recorded.pod_uid == pod.uid).unwrap_or_else(|| {
                        let Trouble { reason, message, .. } = trouble;
                        backoff::failed_inspection(pod, reason, message, previous.as_ref(), now)
                    });
                match backoff::remaining(Some(&failure), now) {
                    Some(left) => steps.look_again(left),
                    None => steps.delete(pod, "it failed, and it is time to inspect again"),
                }
                unknown(failed(&failure), Some(failure))
            }
        };
    }
    if waits_for_image(pod) && pod.image != observed.settings.runtime_image {
        steps.delete(pod, "it waits for an image and the operator has another one now");
    } else if pod.phase == Phase::Pending && pod.revision != inspect_revision(deployment) {
        steps.delete(pod, "it has not begun, and the template says something else now");
    }
    unknown(underway(pod), previous)
}

/// No live inspect pod: makes one, or says why not yet.
fn begin(
    deployment: &Deployment,
    observed: &Observed,
    ending: Option<&ObservedPod>,
    previous: Option<&Failure>,
    now: Timestamp,
    source_hash: &str,
    steps: &mut Steps,
) -> Finding {
    if let (Source::Claim { name, .. }, Some(ClaimState::Missing)) = (&deployment.source, observed.claim) {
        steps.look_again(LOOK_INTERVAL);
        let message = format!(
            "PersistentVolumeClaim {name} does not exist in namespace {}; create it, or correct \
             model.source.persistentVolumeClaim.claimName",
            deployment.namespace
        );
        return Finding::new(State::False, reason::CLAIM_NOT_FOUND, message);
    }
    if let Some(failure) = previous
        && let Some(left) = backoff::remaining(Some(failure), now)
    {
        steps.look_again(left);
        return failed(failure);
    }
    let name = inspect_pod_name(&deployment.name, source_hash);
    if observed.taken_names.contains(&name) {
        // Left by a ModelDeployment of the same name; the garbage collector is at it.
        steps.look_again(LOOK_INTERVAL);
    } else if ending.is_none() {
        steps.create(inspect_pod(deployment, source_hash, &observed.settings));
    }
    previous.map_or_else(|| looking(&deployment.source), failed)
}

/// The inspection that an ended pod has left.
fn report(pod: &ObservedPod) -> Result<Inspection, Trouble> {
    let ended = pod.last_termination.as_ref();
    if pod.phase == Phase::Succeeded || ended.is_some_and(|termination| termination.exit_code == 0) {
        let message = ended.map_or("", |termination| termination.message.as_str());
        return serde_json::from_str(message).map_err(|error| Trouble {
            kind: Kind::Process,
            reason: "NoReport".to_owned(),
            message: format!(
                "inspect pod {} ended well but left no report ({error}); check that the operator's runtime image has \
                 the operator's version",
                pod.name
            ),
        });
    }
    Err(trouble(pod).unwrap_or_else(|| Trouble {
        kind: Kind::Process,
        reason: "PodFailed".to_owned(),
        message: format!("inspect pod {} failed; see kubectl describe pod {}", pod.name, pod.name),
    }))
}

fn accepted(weights: &WeightsStatus) -> Finding {
    let message = format!("the spec is valid and the weights are a {}", weights.inspection.architecture);
    Finding::new(State::True, reason::ACCEPTED, message)
}

fn looking(source: &Source) -> Finding {
    let message = match source {
        Source::Image { reference, .. } => format!("the weights in image {reference} are being inspected"),
        Source::Claim { name, .. } => format!(
            "the weights in {} of PersistentVolumeClaim {name} are being inspected",
            model_dir(source)
        ),
    };
    Finding::new(State::Unknown, reason::INSPECTING, format!("{message}; wait, or see kubectl get pods"))
}

fn underway(pod: &ObservedPod) -> Finding {
    match trouble(pod) {
        None => {
            let message =
                format!("pod {0} inspects the weights; wait, or see kubectl describe pod {0}", pod.name);
            Finding::new(State::Unknown, reason::INSPECTING, message)
        }
        Some(trouble) => {
            let reason = match trouble.kind {
                Kind::Image => reason::IMAGE_NOT_PULLED,
                Kind::Unplaced => reason::INSPECT_NOT_PLACED,
                Kind::Process | Kind::Restart | Kind::Silent | Kind::Device | Kind::Model => {
                    reason::INSPECT_FAILED
                }
            };
            Finding::new(State::False, reason, trouble.message)
        }
    }
}

/// The runtime names its own reason; anything else was not the weights' fault.
fn failed(failure: &Failure) -> Finding {
    let rejected = failure.reason == reason::MODEL_REJECTED;
    let reason = if rejected { reason::MODEL_REJECTED } else { reason::INSPECT_FAILED };
    Finding::new(State::False, reason, failure.message.clone())
}

#[cfg(test)]
mod tests;
