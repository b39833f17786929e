//! What the ranks need, how they hold the model, and whether the nodes can take them.
//!
//! Needed memory of a rank = (its weights + its experts + KV cache of one longest request + working memory) × 1.05.
//! What was not asked for is chosen once: ranks, quantization, GPUs of a rank ([`Situation::choose`]). The choice is
//! kept while what it was made from stays the same ([`CapacityPlan::basis`]), so that a node that comes or goes, or a
//! change of `replicas` or of `ranks` above 1, never restarts ranks.
//!
//! What cannot work anywhere (limit too small, device unsupported, context too long) makes no pod. Nodes that are too
//! small do make a pod, which stays pending: a cluster autoscaler adds nodes only for pending pods, and the scheduler,
//! not this estimate, has the last word.

mod explain;
mod layout;
mod nodes;
mod remedy;
mod situation;

pub use layout::{Demand, Layout};

use crate::fingerprint::fingerprint;
use crate::objects;
use crate::observed::{Free, Observed, ObservedNode, Role};
use crate::plan::Finding;
use crate::validate::Deployment;
use coterie_api::deployment::DeviceChoice;
use coterie_api::deployment::status::{CapacityOption, CapacityParts, CapacityStatus, WeightsStatus};
use coterie_api::launch::{Device, Quantization, RankLaunch, Speculate};
use coterie_api::name;
use nodes::Nodes;
use situation::Situation;

/// What the ranks need.
#[derive(Clone, Debug, PartialEq)]
pub struct CapacityPlan {
    /// Hash of what the choice was made from.
    pub basis: String,
    /// What ranks compute on.
    pub device: Device,
    /// How they hold the weights.
    pub quantization: Quantization,
    /// Longest request, tokens: as asked for, else the model's own.
    pub context_length: u32,
    /// Pods of one replica.
    pub ranks: u32,
    /// Slots of each layer beyond one for every expert, all ranks together.
    pub redundant: u32,
    /// GPUs of one rank; 0 on the CPU.
    pub gpus: u32,
    /// Experts of one layer that one rank has room for.
    pub slots: u32,
    /// What the memory of one rank is for, all its GPUs together.
    pub parts: CapacityParts,
    /// Memory of one rank on the device, all its GPUs together, bytes.
    pub needed: u64,
    /// What its pod requests from its node.
    pub demand: Free,
    /// Memory by quantization, best first.
    pub options: Vec<CapacityOption>,
    /// The template's memory limit, bytes.
    pub limit: Option<u64>,
    /// Memory of the device on the largest eligible node when empty, bytes.
    pub largest_node: u64,
    /// Most memory of the device that is free on one eligible node, bytes.
    pub free: u64,
    /// How many ranks all eligible nodes hold when empty.
    pub room: u64,
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
            speculate: deployment.speculate,
            itl_milliseconds: deployment.itl_milliseconds(),
            device: self.device,
            port: name::HTTP_PORT,
            drain_seconds: deployment.drain_seconds,
            experts: None,
        }
    }

    /// Memory of the device that one rank asks for, bytes.
    pub fn asked_of_device(&self) -> u64 {
        match self.device {
            Device::Cpu => self.demand.memory,
            Device::Gpu => self.needed,
        }
    }

    /// Memory on each GPU of a rank, bytes; 0 on the CPU.
    pub fn of_each_gpu(&self) -> u64 {
        match self.gpus {
            0 => 0,
            gpus => self.needed.div_ceil(u64::from(gpus)),
        }
    }

    /// How many ranks of `deployment` the node holds when empty.
    pub fn ranks_on(&self, deployment: &Deployment, node: &ObservedNode) -> u64 {
        let demand = Demand { request: self.demand, of_each_gpu: self.of_each_gpu() };
        let seen = nodes::seen(deployment, std::slice::from_ref(node));
        if nodes::may_use(&deployment.template, node) { nodes::takes(&seen[0], demand) } else { 0 }
    }

    /// For the status; `free` is only told while a rank waits for room, or every pod in the cluster would change it.
    pub fn status(&self, tell_free: bool) -> CapacityStatus {
        CapacityStatus {
            basis: self.basis.clone(),
            device: self.device,
            ranks: self.ranks,
            gpus_per_rank: (self.gpus > 0).then_some(self.gpus),
            needed: self.needed,
            parts: Some(self.parts),
            options: self.options.clone(),
            limit: self.limit,
            largest_node: self.largest_node,
            free: tell_free.then_some(self.free),
            would_fit: self.would_fit.clone(),
        }
    }
}

pub(super) fn plan(deployment: &Deployment, weights: &WeightsStatus, observed: &Observed) -> CapacityPlan {
    let inspection = &match deployment.speculate {
        Some(Speculate::Mtp) => weights.inspection.clone().with_draft_module(),
        _ => weights.inspection.clone(),
    };
    let seen = nodes::seen(deployment, &observed.nodes);
    let nodes = Nodes::eligible(&deployment.template, &seen);
    let any_node = !observed.nodes.is_empty();
    let gpu_image = observed.settings.gpu_runtime_image.is_some();
    let situation = Situation { deployment, inspection, nodes, any_node, gpu_image };
    let basis = basis(deployment, weights);
    let kept = kept(&situation, observed, &basis);
    let device = kept.as_ref().map_or_else(
        || choose_device(deployment, &situation.devices(), &observed.nodes),
        |(layout, _)| layout.device,
    );
    let placed = observed
        .pods
        .iter()
        .any(|p| p.role == Some(Role::Rank) && p.terminating.is_none() && p.node.is_some());
    let kept = kept.filter(|(layout, chosen)| *chosen && (placed || situation.fits(layout)));
    let layout = kept.map_or_else(|| situation.choose(device), |(layout, _)| layout);
    let mut plan = described(&situation, &layout, basis);
    explain::obstacles(&situation, &layout, &mut plan);
    plan
}

/// What was chosen before, with what is asked for now, and whether there was a choice of quantization: the layout of the
/// same basis. A replica of one rank is another thing than one of several: between the two, all is chosen anew.
fn kept(situation: &Situation, observed: &Observed, basis: &str) -> Option<(Layout, bool)> {
    let deployment = situation.deployment;
    let capacity = observed.status.capacity.as_ref().filter(|capacity| capacity.basis == basis)?;
    let ranks = deployment.ranks.unwrap_or(capacity.ranks);
    let too_many_copies = u64::from(deployment.experts.redundant) > situation.most_copies(ranks);
    if (ranks > 1) != (capacity.ranks > 1) || too_many_copies {
        return None;
    }
    let gpus = match capacity.device {
        Device::Cpu => 0,
        Device::Gpu => deployment.gpus_per_rank.or(capacity.gpus_per_rank).unwrap_or(1),
    };
    let quantization = deployment.quantization.or(observed.status.quantization);
    let layout = Layout {
        quantization: quantization.unwrap_or(Quantization::Int8),
        ..situation.layout(capacity.device, ranks, gpus)
    };
    Some((layout, quantization.is_some()))
}

/// The plan for a layout, without obstacles.
fn described(situation: &Situation, layout: &Layout, basis: String) -> CapacityPlan {
    let (inspection, nodes) = (situation.inspection, &situation.nodes);
    let demand = situation.demand(layout);
    let options = situation.known_on(layout.device).into_iter().map(|quantization| {
        let layout = Layout { quantization, ..*layout };
        CapacityOption {
            quantization,
            needed: layout.needed(inspection),
            fits: situation.fits(&layout),
            longest_context: situation.longest_context(&layout),
        }
    });
    CapacityPlan {
        basis,
        device: layout.device,
        quantization: layout.quantization,
        context_length: layout.context_length,
        ranks: layout.ranks,
        redundant: layout.redundant,
        gpus: layout.gpus,
        slots: layout.slots(inspection.experts),
        parts: layout.parts(inspection),
        needed: layout.needed(inspection),
        demand: demand.request,
        options: options.collect(),
        limit: situation.deployment.template.memory_limit,
        largest_node: nodes.largest(layout.device),
        free: nodes.free(layout.device),
        room: nodes.room(demand),
        has_room: nodes.has_room_now(demand),
        would_fit: None,
        invalid: None,
        unplaceable: None,
    }
}

/// Everything that the choice depends on, except the nodes and the numbers of ranks, replicas and redundant experts:
/// to change those restarts nobody.
fn basis(deployment: &Deployment, weights: &WeightsStatus) -> String {
    let template = &deployment.template;
    let made = (
        (
            &weights.source_hash,
            &weights.inspection.digest,
            deployment.context_length,
            deployment.quantization,
        ),
        (deployment.device, deployment.gpus_per_rank),
        (&template.requests, &template.limits, &template.node_selector, &template.tolerations),
    );
    // What was chosen before there were draft modules keeps its hash.
    match deployment.speculate {
        Some(Speculate::Mtp) => fingerprint(&(made, Speculate::Mtp), 12),
        _ => fingerprint(&made, 12),
    }
}

/// What to compute on, where the runtime can serve the model on `devices`.
pub fn choose_device(deployment: &Deployment, devices: &[Device], nodes: &[ObservedNode]) -> Device {
    let gpus = u64::from(deployment.gpus_per_rank.unwrap_or(1));
    let seen = nodes::seen(deployment, nodes);
    let eligible = Nodes::eligible(&deployment.template, &seen);
    match deployment.device {
        DeviceChoice::Cpu => Device::Cpu,
        DeviceChoice::Gpu => Device::Gpu,
        DeviceChoice::Auto => {
            let offered = eligible.most_gpus() >= gpus;
            let gpu = devices.contains(&Device::Gpu) && (offered || !devices.contains(&Device::Cpu));
            // What no CPU computes with is asked of GPUs, and what hinders them is told.
            let gpu = gpu || deployment.quantization.is_some_and(|asked| !asked.runs_on(Device::Cpu));
            if gpu { Device::Gpu } else { Device::Cpu }
        }
    }
}

#[cfg(test)]
mod tests;
