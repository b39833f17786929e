//! `plan`: what to do next, from what was asked and what is seen. One step; the rest follows from the next look.

pub mod backoff;
pub mod capacity;
pub mod certificates;
pub mod experts;
pub mod inspection;
pub mod placement;
pub mod replica;
pub mod replicas;
pub mod revision;
pub mod rollout;
pub mod trouble;

use crate::objects;
use crate::observed::{Observed, ObservedPod};
use crate::validate::Deployment;
use capacity::CapacityPlan;
use certificates::CertificateChange;
use coterie_api::launch::{Device, Inspection, Quantization};
use experts::{ExpertsPlan, Shape};
use inspection::InspectionPlan;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rollout::{RolloutPlan, Step, Target};
use std::collections::BTreeMap;

/// What to do next, and the reasons, from which the status is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What is known of the weights.
    pub inspection: InspectionPlan,
    /// What one rank needs; `None` while the weights are unknown.
    pub capacity: Option<CapacityPlan>,
    /// Where the replicas stand.
    pub rollout: RolloutPlan,
    /// Where the experts of replicas of several ranks are.
    pub experts: ExpertsPlan,
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
    /// Create. One of that name which is there already and is ours is a success; one that is not ours is a refusal.
    CreateConfigMap(Box<ConfigMap>),
    /// Server-side apply under our field manager, forced, to the one with that uid.
    ApplyConfigMap(Box<ConfigMap>),
    /// Delete, with both preconditions. Not found and a failed precondition are no refusals.
    DeleteConfigMap(Deletion),
    /// Make or change the certificates of the exchange.
    ChangeCertificates(CertificateChange),
    /// Change labels and annotations of a pod, of the version that was seen. Not found and another version are no refusals.
    Annotate(Annotation),
    /// Create. A pod of that name which is there already and is ours is a success (an older view was planned on);
    /// one that is not ours is a refusal.
    CreatePod(Box<Pod>),
    /// Delete, with the pod's own grace period and both preconditions. Not found and a failed precondition are no
    /// refusals: somebody was faster, and the next look will tell.
    DeletePod(Deletion),
}

/// An object to delete, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Its name.
    pub name: String,
    /// Precondition.
    pub uid: String,
    /// Precondition.
    pub resource_version: String,
    /// Instead of the pod's own grace period, seconds: 0 where that is over, because its node does not answer.
    pub grace_seconds: Option<u32>,
    /// Why, for the log.
    pub why: &'static str,
}

/// Labels and annotations to change on a pod, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Its name.
    pub pod: String,
    /// Precondition.
    pub uid: String,
    /// Precondition.
    pub resource_version: String,
    /// Labels to set.
    pub labels: BTreeMap<String, String>,
    /// Annotations to set, or to take away.
    pub annotations: BTreeMap<String, Option<String>>,
}

impl Action {
    /// Kind and name of the object, e.g. `Pod smol-moe-0`.
    pub fn object(&self) -> String {
        let named = |kind: &str, metadata: &ObjectMeta| {
            format!("{kind} {}", metadata.name.as_deref().unwrap_or_default())
        };
        match self {
            Action::ApplyService(service) => named("Service", &service.metadata),
            Action::CreateConfigMap(map) | Action::ApplyConfigMap(map) => named("ConfigMap", &map.metadata),
            Action::DeleteConfigMap(deletion) => format!("ConfigMap {}", deletion.name),
            Action::ChangeCertificates(change) => format!("Secret {}", change.name),
            Action::CreatePod(pod) => named("Pod", &pod.metadata),
            Action::Annotate(annotation) => format!("Pod {}", annotation.pod),
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
    pub(crate) fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(crate) fn create(&mut self, pod: Pod) {
        self.push(Action::CreatePod(Box::new(pod)));
    }

    pub(crate) fn delete(&mut self, pod: &ObservedPod, why: &'static str) {
        self.push(Action::DeletePod(deletion(pod, None, why)));
    }

    pub(crate) fn delete_all(&mut self, pods: &[&ObservedPod], why: &'static str) {
        pods.iter().for_each(|pod| self.delete(pod, why));
    }

    pub(crate) fn delete_within(&mut self, pod: &ObservedPod, seconds: u32, why: &'static str) {
        self.push(Action::DeletePod(deletion(pod, Some(seconds), why)));
    }

    pub(crate) fn annotate(&mut self, annotation: Annotation) {
        self.push(Action::Annotate(annotation));
    }

    pub(crate) fn delete_config_map(&mut self, map: &ConfigMap, why: &'static str) {
        let ObjectMeta { name, uid, resource_version, .. } = map.metadata.clone();
        self.push(Action::DeleteConfigMap(Deletion {
            name: name.unwrap_or_default(),
            uid: uid.unwrap_or_default(),
            resource_version: resource_version.unwrap_or_default(),
            grace_seconds: None,
            why,
        }));
    }

    /// The earliest of the times asked for counts.
    pub(crate) fn look_again(&mut self, after: SignedDuration) {
        self.look_again_after = Some(self.look_again_after.map_or(after, |earlier| earlier.min(after)));
    }
}

fn deletion(pod: &ObservedPod, grace_seconds: Option<u32>, why: &'static str) -> Deletion {
    Deletion {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        resource_version: pod.resource_version.clone(),
        grace_seconds,
        why,
    }
}

/// One next step towards what was asked. Total: every snapshot has a plan.
pub fn plan(deployment: &Deployment, observed: &Observed, now: Timestamp) -> Plan {
    let now = whole_second(now);
    let mut steps = Steps::default();
    let foreign_services = services(deployment, observed, &mut steps);
    let inspection = inspection::plan(deployment, observed, now, &mut steps);
    let capacity = inspection.weights.as_ref().map(|weights| capacity::plan(deployment, weights, observed));
    let target = match (&capacity, &inspection.weights) {
        (Some(capacity), Some(weights)) if !capacity.is_hopeless() => {
            let shape = Shape::of(&weights.inspection);
            Ok(Target {
                revision: revision::revision(deployment, capacity),
                // A model without experts has nothing to share.
                ranks: if shape.is_possible() { capacity.ranks } else { 1 },
                redundant: capacity.redundant as usize,
                slots: capacity.slots as usize * shape.layers,
                slot_bytes: slot_bytes(&weights.inspection, capacity.quantization, shape),
                adopt_limit: adopt_limit(
                    capacity,
                    slot_bytes(&weights.inspection, capacity.quantization, shape),
                ),
                experts_per_token: weights.inspection.experts_per_token,
                shape,
                launch: capacity.launch(deployment),
                demand: capacity.demand,
            })
        }
        (None, _) if inspection.finding.state == State::Unknown => Err(Step::WaitForInspection),
        _ => Err(Step::Blocked),
    };
    let rollout = rollout::plan(deployment, target.as_ref().map_err(|lack| *lack), observed, now, &mut steps);
    let experts = experts::plan(deployment, target.as_ref().ok(), &rollout, observed, now, &mut steps);
    Plan {
        inspection,
        capacity,
        rollout,
        experts,
        foreign_services,
        actions: steps.actions,
        look_again_after: steps.look_again_after,
    }
}

/// Bytes of one expert of one layer, as ranks hold it.
fn slot_bytes(inspection: &Inspection, quantization: Quantization, shape: Shape) -> u64 {
    // An older runtime did not tell them apart; most of such a model are experts.
    let bytes = inspection.expert_bytes.unwrap_or(inspection.weight_bytes).of(quantization);
    bytes / (shape.layers * shape.experts).max(1) as u64
}

/// What a rank has room for beyond its own, where a limit of memory would end it. Without one its node decides.
fn adopt_limit(capacity: &CapacityPlan, slot_bytes: u64) -> Option<u32> {
    let limit = capacity.limit.filter(|_| capacity.device == Device::Cpu)?;
    let room = limit.saturating_sub(capacity.needed) / slot_bytes.max(1);
    Some(u32::try_from(room).unwrap_or(u32::MAX))
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
