//! What one rank needs, how it is held, and whether a node can take it.
//!
//! Needed memory = (weights + KV cache of one longest request + working memory) × 1.05. A quantization that was not
//! asked for is chosen once: the best that fits the memory limit and some node when that is empty. The choice is kept
//! while what it was made from stays the same ([`CapacityPlan::basis`]), so that a node that comes or goes, or a
//! change of `replicas`, never restarts ranks.
//!
//! What cannot work anywhere (limit too small, device unsupported, context too long) makes no pod. Nodes that are too
//! small do make a pod, which stays pending: a cluster autoscaler adds nodes only for pending pods, and the scheduler,
//! not this estimate, has the last word.

mod explain;

use crate::fingerprint::fingerprint;
use crate::objects;
use crate::observed::{Free, Observed, ObservedNode, Role};
use crate::plan::Finding;
use crate::validate::{Deployment, Template};
use coterie_api::deployment::DeviceChoice;
use coterie_api::deployment::status::{CapacityOption, CapacityStatus, WeightsStatus};
use coterie_api::launch::{Device, Quantization, RankLaunch};
use coterie_api::name;
use k8s_openapi::api::core::v1::{Taint, Toleration};

const MIB: u64 = 1 << 20;

/// What one rank needs.
#[derive(Clone, Debug, PartialEq)]
pub struct CapacityPlan {
    /// Hash of what the choice was made from.
    pub basis: String,
    /// What it computes on.
    pub device: Device,
    /// How the weights are held.
    pub quantization: Quantization,
    /// Longest request, tokens: as asked for, else the model's own.
    pub context_length: u32,
    /// Memory on the device, bytes.
    pub needed: u64,
    /// What the pod requests from its node.
    pub demand: Free,
    /// Memory by quantization, best first.
    pub options: Vec<CapacityOption>,
    /// The template's memory limit, bytes.
    pub limit: Option<u64>,
    /// Memory of the largest eligible node when empty, bytes.
    pub largest_node: u64,
    /// Most memory that is free on one eligible node, bytes.
    pub free: u64,
    /// Whether one such node has everything free that a rank requests.
    pub has_room: bool,
    /// What could be asked for instead, when this does not fit.
    pub would_fit: Option<String>,
    /// Why the spec is wrong for this model (`Valid`).
    pub invalid: Option<Finding>,
    /// Why no rank can be placed (`Placed`).
    pub unplaceable: Option<Finding>,
}

impl CapacityPlan {
    /// Whether a rank could not work on any node, however large.
    pub fn is_hopeless(&self) -> bool {
        let hopeless = [
            coterie_api::condition::reason::MEMORY_LIMIT_TOO_SMALL,
            coterie_api::condition::reason::DEVICE_UNSUPPORTED,
        ];
        self.invalid.is_some()
            || self.unplaceable.as_ref().is_some_and(|finding| hopeless.contains(&finding.reason))
    }

    /// The command line of a rank.
    pub fn launch(&self, deployment: &Deployment) -> RankLaunch {
        RankLaunch {
            model_dir: objects::model_dir(&deployment.source),
            served_name: deployment.served_name.clone(),
            context_length: deployment.context_length,
            quantization: self.quantization,
            device: self.device,
            port: name::HTTP_PORT,
            drain_seconds: deployment.drain_seconds,
            experts: None,
        }
    }

    /// For the status; `free` is only told while a rank waits for room, or every pod in the cluster would change it.
    pub fn status(&self, tell_free: bool) -> CapacityStatus {
        CapacityStatus {
            basis: self.basis.clone(),
            device: self.device,
            needed: self.needed,
            options: self.options.clone(),
            limit: self.limit,
            largest_node: self.largest_node,
            free: tell_free.then_some(self.free),
            would_fit: self.would_fit.clone(),
        }
    }
}

/// Memory of one rank, bytes, rounded up to MiB.
pub fn needed(weights: &WeightsStatus, quantization: Quantization, context_length: u32) -> u64 {
    let held = weights.inspection.weight_bytes.of(quantization);
    let cache = u128::from(weights.inspection.kv_bytes_per_token) * u128::from(context_length);
    with_headroom(u128::from(held) + cache + u128::from(weights.inspection.working_bytes))
}

/// The longest context, in steps of 256 tokens, with which a rank needs at most `ceiling` bytes.
pub fn longest_context(weights: &WeightsStatus, quantization: Quantization, ceiling: u64) -> Option<u32> {
    let mut low = 0_u32;
    let mut high = weights.inspection.context_length / 256 + 1;
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if needed(weights, quantization, middle * 256) <= ceiling { low = middle } else { high = middle }
    }
    (low > 0).then_some(low * 256)
}

fn with_headroom(bytes: u128) -> u64 {
    let rounded = (bytes * 21).div_ceil(20).div_ceil(u128::from(MIB)) * u128::from(MIB);
    u64::try_from(rounded).unwrap_or(u64::MAX - u64::MAX % MIB)
}

pub(super) fn plan(deployment: &Deployment, weights: &WeightsStatus, observed: &Observed) -> CapacityPlan {
    let template = &deployment.template;
    let eligible: Vec<&ObservedNode> = observed.nodes.iter().filter(|node| may_use(template, node)).collect();
    let basis = basis(deployment, weights);
    let context_length = deployment.context_length.unwrap_or(weights.inspection.context_length);
    let kept = observed.status.capacity.as_ref().filter(|capacity| capacity.basis == basis);
    let device = kept.map_or_else(|| choose_device(deployment, weights, &eligible), |kept| kept.device);
    let demand = |quantization| demand(deployment, weights, device, quantization, context_length);
    let fits = |quantization| {
        let demand = demand(quantization);
        let within = template.memory_limit.is_none_or(|limit| demand.memory <= limit);
        within && eligible.iter().any(|node| node.allocatable.holds(demand))
    };
    let options = Quantization::BEST_FIRST.map(|quantization| CapacityOption {
        quantization,
        needed: needed(weights, quantization, context_length),
        fits: fits(quantization),
    });
    let placed = observed
        .pods
        .iter()
        .any(|p| p.role == Some(Role::Rank) && p.terminating.is_none() && p.node.is_some());
    let kept = kept.and(observed.status.quantization).filter(|kept| placed || fits(*kept));
    let quantization = deployment.quantization.or(kept).unwrap_or_else(|| {
        let within = |option: &&CapacityOption| {
            template.memory_limit.is_none_or(|limit| demand(option.quantization).memory <= limit)
        };
        let best = options.iter().find(|option| option.fits).or_else(|| options.iter().rev().find(within));
        best.map_or(Quantization::Int8, |option| option.quantization)
    });
    let mut plan = CapacityPlan {
        basis,
        device,
        quantization,
        context_length,
        needed: needed(weights, quantization, context_length),
        demand: demand(quantization),
        options: options.to_vec(),
        limit: template.memory_limit,
        largest_node: eligible.iter().map(|node| node.allocatable.memory).max().unwrap_or(0),
        has_room: eligible.iter().any(|node| node.schedulable && node.free.holds(demand(quantization))),
        free: eligible.iter().filter(|n| n.schedulable).map(|n| n.free.memory).max().unwrap_or(0),
        would_fit: None,
        invalid: None,
        unplaceable: None,
    };
    explain::obstacles(deployment, weights, &eligible, &mut plan);
    plan
}

/// Everything that the choice of device and quantization depends on, except the nodes.
fn basis(deployment: &Deployment, weights: &WeightsStatus) -> String {
    let template = &deployment.template;
    fingerprint(
        &(
            (
                &weights.source_hash,
                &weights.inspection.digest,
                deployment.context_length,
                deployment.quantization,
            ),
            (deployment.device, deployment.gpus_per_rank),
            (&template.requests, &template.limits, &template.node_selector, &template.tolerations),
        ),
        12,
    )
}

fn choose_device(deployment: &Deployment, weights: &WeightsStatus, eligible: &[&ObservedNode]) -> Device {
    let gpus = u64::from(deployment.gpus_per_rank);
    match deployment.device {
        DeviceChoice::Cpu => Device::Cpu,
        DeviceChoice::Gpu => Device::Gpu,
        DeviceChoice::Auto => {
            let gpu = weights.inspection.devices.contains(&Device::Gpu);
            let offered = eligible.iter().any(|node| node.allocatable.gpus >= gpus);
            if gpu && (offered || !weights.inspection.devices.contains(&Device::Cpu)) {
                Device::Gpu
            } else {
                Device::Cpu
            }
        }
    }
}

/// What a rank's pod requests. A rank on GPUs holds its weights there: of the node it needs the working memory.
fn demand(
    deployment: &Deployment,
    weights: &WeightsStatus,
    device: Device,
    quantization: Quantization,
    context_length: u32,
) -> Free {
    let (memory, gpus) = match device {
        Device::Cpu => (needed(weights, quantization, context_length), 0),
        Device::Gpu => {
            (with_headroom(u128::from(weights.inspection.working_bytes)), u64::from(deployment.gpus_per_rank))
        }
    };
    Free {
        memory: memory.max(deployment.template.memory_request.unwrap_or(0)),
        cpu: deployment.template.cpu_request.unwrap_or(0),
        gpus,
    }
}

/// Whether the template's node selector and tolerations let a rank onto this node. A cordon, and what Kubernetes itself
/// taints for the time being (not ready, under pressure), pass.
fn may_use(template: &Template, node: &ObservedNode) -> bool {
    let selected = template.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let tolerated = |taint: &Taint| {
        taint.effect == "PreferNoSchedule"
            || taint.key.starts_with("node.kubernetes.io/")
            || template.tolerations.iter().any(|toleration| tolerates(toleration, taint))
    };
    selected && node.taints.iter().all(tolerated)
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let key = set(&toleration.key).is_none_or(|key| key == taint.key);
    let effect = set(&toleration.effect).is_none_or(|effect| effect == taint.effect);
    let exists = toleration.operator.as_deref() == Some("Exists");
    let value = toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("");
    key && effect && (exists || value && toleration.key.is_some())
}

#[cfg(test)]
mod tests;
