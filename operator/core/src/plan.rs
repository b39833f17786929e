//! `plan`: what to do next, from what was asked and what is seen. One step; the rest follows from the next look.

pub mod backoff;
pub mod capacity;
pub mod inspection;
pub mod placement;
pub mod revision;
pub mod rollout;
pub mod trouble;

use crate::objects;
use crate::observed::{Observed, ObservedPod};
use crate::validate::Deployment;
use capacity::CapacityPlan;
use inspection::InspectionPlan;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Service};
use rollout::{RolloutPlan, Step, Target};

/// What to do next, and the reasons, from which the status is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What is known of the weights.
    pub inspection: InspectionPlan,
    /// What one rank needs; `None` while the weights are unknown.
    pub capacity: Option<CapacityPlan>,
    /// Where the replicas stand.
    pub rollout: RolloutPlan,
    /// Names of Services that we need and that somebody else has.
    pub foreign_services: Vec<String>,
    /// To be done now, in this order; empty when all is as asked. An action that fails does not keep the shell from
    /// the ones after it.
    pub actions: Vec<Action>,
    /// When to plan again, if nothing happens before.
    pub look_again_after: Option<SignedDuration>,
}

/// One write to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Server-side apply under our field manager, forced. Where that is refused, because a port that somebody moved
    /// stays beside ours in the merged list under the same name, the ports are replaced as a whole.
    ApplyService(Box<Service>),
    /// Create. A pod of that name which is there already and is ours is a success (an older view was planned on);
    /// one that is not ours is a refusal.
    CreatePod(Box<Pod>),
    /// Delete, with the pod's own grace period and both preconditions. Not found and a failed precondition are no
    /// refusals: somebody was faster, and the next look will tell.
    DeletePod(PodDeletion),
}

/// A pod to delete, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDeletion {
    /// Its name.
    pub name: String,
    /// Precondition.
    pub uid: String,
    /// Precondition.
    pub resource_version: String,
    /// Why, for the log.
    pub why: &'static str,
}

impl Action {
    /// Kind and name of the object, e.g. `Pod smol-moe-0`.
    pub fn object(&self) -> String {
        match self {
            Action::ApplyService(service) => {
                format!("Service {}", service.metadata.name.as_deref().unwrap_or(""))
            }
            Action::CreatePod(pod) => format!("Pod {}", pod.metadata.name.as_deref().unwrap_or("")),
            Action::DeletePod(deletion) => format!("Pod {}", deletion.name),
        }
    }
}

/// Whether something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is.
    True,
    /// It is not.
    False,
    /// Nobody can tell yet.
    Unknown,
}

/// What a condition should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its status.
    pub state: State,
    /// One of [`coterie_api::condition::reason`].
    pub reason: &'static str,
    /// For people; unless the state is true, it ends with what to do.
    pub message: String,
}

impl Finding {
    pub(crate) fn new(state: State, reason: &'static str, message: impl Into<String>) -> Self {
        Self { state, reason, message: message.into() }
    }
}

/// Collects what the parts of a plan want done.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    actions: Vec<Action>,
    look_again_after: Option<SignedDuration>,
}

impl Steps {
    pub(crate) fn create(&mut self, pod: Pod) {
        self.actions.push(Action::CreatePod(Box::new(pod)));
    }

    pub(crate) fn delete(&mut self, pod: &ObservedPod, why: &'static str) {
        self.actions.push(Action::DeletePod(PodDeletion {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            resource_version: pod.resource_version.clone(),
            why,
        }));
    }

    /// The earliest of the times asked for counts.
    pub(crate) fn look_again(&mut self, after: SignedDuration) {
        self.look_again_after = Some(self.look_again_after.map_or(after, |earlier| earlier.min(after)));
    }
}

/// One next step towards what was asked. Total: every snapshot has a plan.
pub fn plan(deployment: &Deployment, observed: &Observed, now: Timestamp) -> Plan {
    let now = whole_second(now);
    let mut steps = Steps::default();
    let foreign_services = services(deployment, observed, &mut steps);
    let inspection = inspection::plan(deployment, observed, now, &mut steps);
    let capacity = inspection.weights.as_ref().map(|weights| capacity::plan(deployment, weights, observed));
    let target = match &capacity {
        Some(capacity) if !capacity.is_hopeless() => Ok(Target {
            revision: revision::revision(deployment, capacity),
            launch: capacity.launch(deployment),
            demand: capacity.demand,
        }),
        None if inspection.finding.state == State::Unknown => Err(Step::WaitForInspection),
        _ => Err(Step::Blocked),
    };
    let rollout = rollout::plan(deployment, target.as_ref().map_err(|lack| *lack), observed, now, &mut steps);
    Plan {
        inspection,
        capacity,
        rollout,
        foreign_services,
        actions: steps.actions,
        look_again_after: steps.look_again_after,
    }
}

/// Applies the Services that are missing or that somebody changed; gives the names that somebody else has.
fn services(deployment: &Deployment, observed: &Observed, steps: &mut Steps) -> Vec<String> {
    let mut foreign = Vec::new();
    for service in [objects::client_service(deployment), objects::ranks_service(deployment)] {
        let name = service.metadata.name.as_ref();
        match observed.services.iter().find(|there| Some(&there.name) == name) {
            Some(there) if !there.owned => foreign.push(there.name.clone()),
            Some(there) if objects::shows(&there.object, &service) => {}
            _ => steps.actions.push(Action::ApplyService(Box::new(service))),
        }
    }
    foreign
}

/// Kubernetes writes times in whole seconds; a fraction would make a status differ from itself read back.
pub(crate) fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
