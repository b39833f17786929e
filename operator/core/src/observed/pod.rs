//! A pod, reduced to what decisions depend on.

use crate::objects::Told;
use coterie_api::name;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// One of our pods. A field that the API server has not filled yet is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedPod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The version that was seen; deletes name it, so that nothing is deleted on an old view.
    pub resource_version: String,
    /// Uid of the object that controls it.
    pub owner_uid: Option<String>,
    /// What it is for.
    pub role: Option<Role>,
    /// Revision that it was made from.
    pub revision: String,
    /// Number of its replica.
    pub replica: Option<u32>,
    /// Its number in a replica of several ranks.
    pub rank: Option<u32>,
    /// What its mounted files say, as far as it was told.
    pub told: Told,
    /// Image of its container.
    pub image: String,
    /// Since when it is out of service, if it is.
    pub cordoned: Option<Timestamp>,
    /// Passes its readiness probe.
    pub ready: bool,
    /// Its process was ready, runs still, and is not ready now.
    pub silent: bool,
    /// Where it is in its life.
    pub phase: Phase,
    /// When its grace period ends or ended, once it is being deleted.
    pub terminating: Option<Timestamp>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Where it is reached, once it runs.
    pub address: Option<String>,
    /// The node that it was placed on.
    pub node: Option<String>,
    /// What the scheduler says, while it finds no node.
    pub unschedulable: Option<String>,
    /// Why a pod as a whole failed, e.g. `Evicted`, and its message.
    pub failed: Option<Waiting>,
    /// Times that its container was started again.
    pub restarts: i32,
    /// Why its container does not run yet or again.
    pub waiting: Option<Waiting>,
    /// How its container ended the last time.
    pub last_termination: Option<TerminationSeen>,
}

/// What a pod is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Serves the model.
    Rank,
    /// Looks at the weights once.
    Inspect,
}

/// A pod's phase, as Kubernetes has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Accepted; not all containers were started.
    #[default]
    Pending,
    /// Bound to a node; a container runs or is being restarted.
    Running,
    /// All containers ended well and will not be restarted.
    Succeeded,
    /// All containers ended and at least one failed, or the pod was evicted.
    Failed,
}

/// A reason and a message of Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// e.g. `ErrImagePull`, `CrashLoopBackOff`, `Evicted`.
    pub reason: String,
    /// For people; may be empty.
    pub message: String,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TerminationSeen {
    /// Exit code; 137 when killed.
    pub exit_code: i32,
    /// e.g. `OOMKilled`, `Error`, `Completed`.
    pub reason: String,
    /// Its termination message, verbatim.
    pub message: String,
    /// When it had begun.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
}

impl ObservedPod {
    /// Whether the ModelDeployment with this uid controls the pod.
    pub fn is_owned_by(&self, uid: &str) -> bool {
        self.owner_uid.as_deref() == Some(uid)
    }

    /// Its number in its replica; the only rank is number 0.
    pub fn rank_or_only(&self) -> u32 {
        self.rank.unwrap_or(0)
    }
}

impl From<&Pod> for ObservedPod {
    fn from(pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        let label =
            |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
        let annotation = |key: &str| {
            metadata.annotations.as_ref().and_then(|all| all.get(key)).cloned().unwrap_or_default()
        };
        let status = pod.status.as_ref();
        let role = match label(name::LABEL_ROLE) {
            Some(name::ROLE_RANK) => Some(Role::Rank),
            Some(name::ROLE_INSPECT) => Some(Role::Inspect),
            _ => None,
        };
        // Others may have injected containers of their own.
        let ours = if role == Some(Role::Inspect) { name::CONTAINER_INSPECT } else { name::CONTAINER_RANK };
        let container = status.and_then(|s| s.container_statuses.as_ref()?.iter().find(|c| c.name == ours));
        let condition = |kind: &str| status?.conditions.as_ref()?.iter().find(|c| c.type_ == kind);
        let phase = match status.and_then(|s| s.phase.as_deref()) {
            Some("Running") => Phase::Running,
            Some("Succeeded") => Phase::Succeeded,
            Some("Failed") => Phase::Failed,
            _ => Phase::Pending,
        };
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            owner_uid: controller_uid(metadata).map(str::to_owned),
            role,
            revision: label(name::LABEL_REVISION).unwrap_or_default().to_owned(),
            replica: label(name::LABEL_REPLICA).and_then(|number| number.parse().ok()),
            rank: label(name::LABEL_RANK).and_then(|number| number.parse().ok()),
            told: Told {
                experts: annotation(name::ANNOTATION_EXPERTS),
                certificates: annotation(name::ANNOTATION_CERTIFICATES),
            },
            image: pod
                .spec
                .as_ref()
                .and_then(|spec| spec.containers.iter().find(|container| container.name == ours))
                .and_then(|container| container.image.clone())
                .unwrap_or_default(),
            // One that somebody else took out of service has no time of ours, and had its time already.
            cordoned: (label(name::LABEL_SERVING) == Some("false"))
                .then(|| annotation(name::ANNOTATION_CORDONED).parse().unwrap_or(Timestamp::UNIX_EPOCH)),
            ready: condition("Ready").is_some_and(|c| c.status == "True"),
            silent: container.is_some_and(|container| is_silent(container, condition("Ready"))),
            phase,
            terminating: metadata.deletion_timestamp.as_ref().map(|time| time.0),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            address: status.and_then(|status| status.pod_ip.clone()),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            unschedulable: condition("PodScheduled")
                .filter(|c| c.status == "False")
                .map(|c| c.message.clone().or_else(|| c.reason.clone()).unwrap_or_default()),
            failed: (phase == Phase::Failed).then(|| status?.reason.clone()).flatten().map(|reason| {
                Waiting { reason, message: status.and_then(|s| s.message.clone()).unwrap_or_default() }
            }),
            restarts: container.map_or(0, |c| c.restart_count),
            waiting: container.and_then(waiting),
            last_termination: container.and_then(last_termination),
        }
    }
}

/// Uid of the object that controls the one with this metadata.
pub(super) fn controller_uid(metadata: &ObjectMeta) -> Option<&str> {
    let owners = metadata.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

fn waiting(container: &ContainerStatus) -> Option<Waiting> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    Some(Waiting {
        reason: waiting.reason.clone().unwrap_or_default(),
        message: waiting.message.clone().unwrap_or_default(),
    })
}

/// Whether it stopped being ready after its process had begun: before that it has been ready.
fn is_silent(container: &ContainerStatus, ready: Option<&PodCondition>) -> bool {
    let running = container.state.as_ref().and_then(|state| state.running.as_ref());
    let since = running.and_then(|running| running.started_at.as_ref());
    let lost = ready.filter(|ready| ready.status == "False");
    let lost = lost.and_then(|ready| ready.last_transition_time.as_ref());
    since.zip(lost).is_some_and(|(since, lost)| lost.0 > since.0)
}

/// The present end of the container if it has ended, else the one before its last start.
fn last_termination(container: &ContainerStatus) -> Option<TerminationSeen> {
    let ended = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    let before = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let terminated = ended.or(before)?;
    Some(TerminationSeen {
        exit_code: terminated.exit_code,
        reason: terminated.reason.clone().unwrap_or_default(),
        message: terminated.message.clone().unwrap_or_default(),
        started: terminated.started_at.as_ref().map(|time| time.0),
        finished: terminated.finished_at.as_ref().map(|time| time.0),
    })
}

#[cfg(test)]
mod tests;
