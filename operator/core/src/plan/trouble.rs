//! What keeps a pod from its work, as a sentence that ends with what to do.

use crate::observed::{ObservedPod, Phase, TerminationSeen, Waiting};
use coterie_api::condition::reason;
use coterie_api::launch::{Termination, TerminationReason};
use jiff::SignedDuration;

/// A process that lived for longer did not end because of how it was started.
const SOON: SignedDuration = SignedDuration::from_mins(10);

/// What keeps a pod from its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind.
    pub kind: Kind,
    /// For programs: the runtime's reason or that of Kubernetes.
    pub reason: String,
    /// One or two sentences: what happened, and what to do.
    pub message: String,
}

/// Kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No node takes the pod.
    Unplaced,
    /// An image cannot be pulled.
    Image,
    /// The container cannot be started, or its process ends again and again.
    Process,
    /// Its process ended once, and is started again.
    Restart,
    /// It was ready, and runs, and does not pass its probes.
    Silent,
    /// The runtime says that its GPUs cannot be used as they are.
    Device,
    /// The runtime says that the weights are unusable.
    Model,
}

impl Kind {
    /// The reason that a condition about ranks gives.
    pub fn reason(self) -> &'static str {
        match self {
            Kind::Unplaced => reason::UNSCHEDULABLE,
            Kind::Image => reason::IMAGE_NOT_PULLED,
            Kind::Process => reason::CRASH_LOOP,
            Kind::Restart => reason::RESTARTING,
            Kind::Silent => reason::NOT_ANSWERING,
            Kind::Device => reason::DEVICE_UNUSABLE,
            Kind::Model => reason::MODEL_REJECTED,
        }
    }
}

/// What keeps this pod from its work, if anything is known to.
pub fn trouble(pod: &ObservedPod) -> Option<Trouble> {
    if let Some(scheduler) = pod.unschedulable.as_ref().filter(|_| pod.node.is_none()) {
        let message = format!(
            "no node takes pod {}: {}; free resources, add a node, or change template",
            pod.name,
            sentence(scheduler)
        );
        return Some(Trouble { kind: Kind::Unplaced, reason: "Unschedulable".to_owned(), message });
    }
    if let Some(waiting) = &pod.waiting
        && let Some(trouble) = waiting_trouble(&pod.name, waiting)
    {
        return Some(trouble);
    }
    let ended = matches!(pod.phase, Phase::Failed | Phase::Succeeded);
    // However an earlier process of it ended: that is not what keeps this one from answering.
    if pod.silent && !ended {
        return Some(silent_trouble(&pod.name));
    }
    match (&pod.last_termination, &pod.failed) {
        (Some(termination), _) if ended => Some(ended_trouble(pod, termination)),
        (Some(termination), _) if !pod.ready => Some(restarted_trouble(pod, termination)),
        (_, Some(failed)) => Some(lost_trouble(&pod.name, failed)),
        (None, None) if ended => Some(lost_trouble(&pod.name, &Waiting::default())),
        _ => None,
    }
}

fn silent_trouble(pod: &str) -> Trouble {
    let message = format!(
        "pod {pod} was ready and does not answer its probes any more; its process is started again if that goes on, see \
         kubectl describe pod {pod}"
    );
    Trouble { kind: Kind::Silent, reason: "Unhealthy".to_owned(), message }
}

/// One end is an accident; several, each soon after a start, are a loop.
fn restarted_trouble(pod: &ObservedPod, termination: &TerminationSeen) -> Trouble {
    let trouble = ended_trouble(pod, termination);
    let lived = termination.started.zip(termination.finished);
    let soon = lived.is_none_or(|(started, finished)| finished.duration_since(started) < SOON);
    let waits = pod.waiting.as_ref().is_some_and(|waiting| waiting.reason == "CrashLoopBackOff");
    let again = waits || soon && pod.restarts > 1;
    let kind = if trouble.kind == Kind::Process && !again { Kind::Restart } else { trouble.kind };
    Trouble { kind, ..trouble }
}

/// Whether an image of this pod cannot be pulled.
pub fn waits_for_image(pod: &ObservedPod) -> bool {
    pod.waiting.as_ref().is_some_and(|waiting| is_image_reason(&waiting.reason))
}

fn is_image_reason(reason: &str) -> bool {
    matches!(
        reason,
        "ErrImagePull"
            | "ImagePullBackOff"
            | "ErrImageNeverPull"
            | "InvalidImageName"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed"
    )
}

fn waiting_trouble(pod: &str, waiting: &Waiting) -> Option<Trouble> {
    let of = |kind, message| Some(Trouble { kind, reason: waiting.reason.clone(), message });
    // The kubelet swaps between the error and "Back-off pulling …: the error": one text for both keeps status quiet.
    let cause =
        waiting.message.split_once("ErrImagePull: ").map_or(waiting.message.as_str(), |(_, cause)| cause);
    let cause = sentence(cause);
    match waiting.reason.as_str() {
        "" | "ContainerCreating" | "PodInitializing" | "CrashLoopBackOff" => None,
        "ErrImageNeverPull" => of(
            Kind::Image,
            format!(
                "pod {pod} waits for an image that its node does not have: {cause}; load it onto the nodes, or change pullPolicy"
            ),
        ),
        "ErrImagePull" | "ImagePullBackOff" => Some(Trouble {
            kind: Kind::Image,
            reason: "ErrImagePull".to_owned(),
            message: format!(
                "pod {pod} cannot pull an image: {cause}; check model.source.image.reference, \
                 template.imagePullSecrets and the registry"
            ),
        }),
        reason if is_image_reason(reason) => of(
            Kind::Image,
            format!(
                "pod {pod} cannot use an image ({reason}): {cause}; correct model.source.image.reference"
            ),
        ),
        reason => of(
            Kind::Process,
            format!("pod {pod} cannot be started ({reason}): {cause}; see kubectl describe pod {pod}"),
        ),
    }
}

/// A process that ended says why in its termination message, if it could.
pub(super) fn ended_trouble(pod: &ObservedPod, termination: &TerminationSeen) -> Trouble {
    if let Ok(told) = serde_json::from_str::<Termination>(&termination.message) {
        let kind = match told.reason {
            TerminationReason::ModelRejected => Kind::Model,
            TerminationReason::DeviceUnusable => Kind::Device,
            TerminationReason::LaunchRejected | TerminationReason::Failed => Kind::Process,
        };
        return Trouble { kind, reason: format!("{:?}", told.reason), message: told.message };
    }
    let reason = Some(termination.reason.clone()).filter(|reason| !reason.is_empty());
    let name = &pod.name;
    let message = if termination.reason == "OOMKilled" {
        format!(
            "the process of pod {name} was killed for want of memory; raise template.resources.limits.memory, or lower \
             model.contextLength"
        )
    } else {
        let tail = termination.message.trim().lines().last().unwrap_or_default();
        let tail = if tail.is_empty() { String::new() } else { format!(": {}", sentence(tail)) };
        let previous = if pod.restarts > 0 { "--previous " } else { "" };
        format!(
            "the process of pod {name} ended with exit code {}{tail}; see kubectl logs {previous}{name}",
            termination.exit_code
        )
    };
    Trouble { kind: Kind::Process, reason: reason.unwrap_or_else(|| "Error".to_owned()), message }
}

fn lost_trouble(pod: &str, failed: &Waiting) -> Trouble {
    let reason = if failed.reason.is_empty() { "PodFailed" } else { failed.reason.as_str() };
    let cause =
        if failed.message.is_empty() { String::new() } else { format!(": {}", sentence(&failed.message)) };
    let message = format!(
        "pod {pod} was lost ({reason}){cause}; it is replaced, see kubectl get events if that goes on"
    );
    Trouble { kind: Kind::Process, reason: reason.to_owned(), message }
}

/// Without the full stop and the length that would spoil the sentence around it.
fn sentence(text: &str) -> &str {
    const LIMIT: usize = 600;
    let text = text.trim().trim_end_matches('.');
    let end = (0..=LIMIT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    /// A rank whose last process lived for so many seconds.
    fn restarted(restarts: i32, lived: i64) -> ObservedPod {
        let at = |second| Timestamp::from_second(1_800_000_000 + second).ok();
        let last = TerminationSeen {
            exit_code: 137,
            reason: "Error".into(),
            message: String::new(),
            started: at(0),
            finished: at(lived),
        };
        ObservedPod {
            name: "smol-0".into(),
            phase: Phase::Running,
            restarts,
            last_termination: Some(last),
            ..Default::default()
        }
    }

    fn kind(pod: &ObservedPod) -> Option<Kind> {
        trouble(pod).map(|trouble| trouble.kind)
    }

    #[test]
    fn one_end_is_a_restart_and_ends_in_a_row_are_a_loop() {
        assert_eq!(kind(&restarted(1, 20)), Some(Kind::Restart));
        assert_eq!(kind(&restarted(2, 20)), Some(Kind::Process));
        assert_eq!(kind(&restarted(9, 86_400)), Some(Kind::Restart), "it lived for a day");
        let waiting = Waiting { reason: "CrashLoopBackOff".into(), message: String::new() };
        let waits = ObservedPod { waiting: Some(waiting), ..restarted(1, 20) };
        assert_eq!(kind(&waits), Some(Kind::Process));
        let ready = ObservedPod { ready: true, ..restarted(1, 20) };
        assert_eq!(kind(&ready), None);
    }

    #[test]
    fn one_that_hangs_is_told_of_as_such_whatever_ended_before() {
        let silent = ObservedPod { silent: true, ..restarted(5, 20) };
        let told = trouble(&silent).unwrap();
        assert_eq!((told.kind, told.kind.reason()), (Kind::Silent, "NotAnswering"));
        assert!(told.message.starts_with("pod smol-0 was ready and does not answer its probes"), "{told:?}");
    }
}
