//! Why ranks cannot be placed.

use super::layout::Layout;
use super::situation::Situation;
use super::{CapacityPlan, remedy};
use crate::observed::ObservedNode;
use crate::observed::quantity::readable;
use crate::plan::{Finding, State};
use coterie_api::condition::reason;
use coterie_api::deployment::DeviceChoice;
use coterie_api::launch::{Device, Speculate};
use coterie_api::name;

/// Writes the first obstacle that there is into the plan.
pub(super) fn obstacles(situation: &Situation, layout: &Layout, plan: &mut CapacityPlan) {
    plan.invalid =
        context(situation).or_else(|| width(situation, layout)).or_else(|| draft_module(situation));
    if plan.invalid.is_some() {
        return;
    }
    plan.unplaceable = device(situation, plan)
        .or_else(|| most_gpus(situation, plan))
        .or_else(|| limit(situation, layout, plan))
        .or_else(|| selection(situation))
        .or_else(|| gpus(situation, layout, plan))
        .or_else(|| room(situation, layout, plan));
}

fn no(reason: &'static str, message: String) -> Option<Finding> {
    Some(Finding::new(State::False, reason, message))
}

fn context(situation: &Situation) -> Option<Finding> {
    let inspection = situation.inspection;
    let asked = situation.deployment.context_length.filter(|asked| *asked > inspection.context_length)?;
    let message = format!(
        "model.contextLength is {asked}, and this {} was made for {} tokens; set at most that, or leave it out",
        inspection.architecture, inspection.context_length
    );
    no(reason::CONTEXT_TOO_LONG, message)
}

/// More ranks than experts: those without one would only be further replicas. More copies than the other ranks can
/// hold: no rank holds an expert twice.
fn width(situation: &Situation, layout: &Layout) -> Option<Finding> {
    let (architecture, experts) = (&situation.inspection.architecture, situation.inspection.experts.max(1));
    if layout.ranks > experts {
        let message = format!(
            "ranks is {}, and this {architecture} has {experts} experts a layer; set at most that many, or raise \
             replicas",
            layout.ranks
        );
        return no(reason::TOO_MANY_RANKS, message);
    }
    let most = situation.most_copies(layout.ranks);
    if u64::from(layout.redundant) > most {
        let message = format!(
            "experts.redundant is {}, and {} ranks can hold {most} copies of {experts} experts beside one of each; set \
             at most that many, or raise ranks",
            layout.redundant, layout.ranks
        );
        return no(reason::TOO_MANY_COPIES, message);
    }
    None
}

/// One rank on more GPUs than the runtime can use together.
fn most_gpus(situation: &Situation, plan: &CapacityPlan) -> Option<Finding> {
    let most = situation.inspection.most_gpus;
    if plan.gpus <= most {
        return None;
    }
    let message = format!(
        "accelerator.perRank is {}, and one rank of this build of the runtime computes on {} at most; lower perRank, or raise \
         ranks",
        plan.gpus,
        gpu_count(most.into())
    );
    no(reason::DEVICE_UNSUPPORTED, message)
}

fn draft_module(situation: &Situation) -> Option<Finding> {
    let asked = situation.deployment.speculate == Some(Speculate::Mtp);
    if !asked || situation.inspection.draft_module.is_some() {
        return None;
    }
    let message = format!(
        "model.speculate is Mtp, and this {} has no draft module that the runtime knows; set Lookup, or leave it out",
        situation.inspection.architecture
    );
    no(reason::NO_DRAFT_MODULE, message)
}

fn device(situation: &Situation, plan: &CapacityPlan) -> Option<Finding> {
    if situation.devices().contains(&plan.device) {
        return None;
    }
    if situation.inspection.devices.contains(&plan.device) {
        let message = format!(
            "this installation has no image of the runtime for GPUs; set images.gpuRuntime among the chart's values, or {}",
            on_cpus(situation, "accelerator.device to Cpu or Auto")
        );
        return no(reason::DEVICE_UNSUPPORTED, message);
    }
    if let Some(asked) = situation.deployment.quantization.filter(|asked| !asked.runs_on(Device::Cpu)) {
        let message = format!(
            "model.quantization is {asked}, which is for GPUs only, and this build of the runtime cannot serve {} on GPUs; set \
             model.quantization to Int8, or leave it out",
            situation.inspection.architecture
        );
        return no(reason::DEVICE_UNSUPPORTED, message);
    }
    let (asked, other) = match plan.device {
        Device::Gpu => ("GPUs", "Cpu"),
        Device::Cpu => ("the CPU", "Gpu"),
    };
    let message = format!(
        "this build of the runtime cannot serve {} on {asked}; set accelerator.device to {other} or Auto",
        situation.inspection.architecture
    );
    no(reason::DEVICE_UNSUPPORTED, message)
}

fn limit(situation: &Situation, layout: &Layout, plan: &mut CapacityPlan) -> Option<Finding> {
    let limit = plan.limit.filter(|limit| plan.demand.memory > *limit)?;
    let message = format!(
        "one rank needs {} ({}), and template.resources.limits.memory is {}; {}raise the limit",
        readable(plan.demand.memory),
        asked(plan),
        readable(limit),
        remedy::instead(situation, layout, plan, limit)
    );
    no(reason::MEMORY_LIMIT_TOO_SMALL, message)
}

fn selection(situation: &Situation) -> Option<Finding> {
    if !situation.nodes.0.is_empty() {
        return None;
    }
    if !situation.any_node {
        let message = "there is no node that takes pods; add one, or make one schedulable again".to_owned();
        return no(reason::NO_ELIGIBLE_NODE, message);
    }
    let selector = &situation.deployment.template.node_selector;
    let labels: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let which =
        if labels.is_empty() { String::new() } else { format!(" with label {}", labels.join(" and ")) };
    let message = format!(
        "there is no node{which} whose taints are tolerated; label or add a node, or change template.nodeSelector or \
         template.tolerations"
    );
    no(reason::NO_ELIGIBLE_NODE, message)
}

fn gpus(situation: &Situation, layout: &Layout, plan: &mut CapacityPlan) -> Option<Finding> {
    let node = situation.nodes.0.iter().max_by_key(|node| node.allocatable.gpus)?;
    let most = node.allocatable.gpus;
    if plan.demand.gpus <= most {
        return None;
    }
    if situation.deployment.claim_template.is_some() && most == 0 {
        let message = format!(
            "one rank claims {}, and no node tells that it has any; label the nodes {}=NUMBER and {}=MIB, as NVIDIA's \
             GPU feature discovery does",
            gpu_count(plan.demand.gpus),
            name::LABEL_GPU_COUNT,
            name::LABEL_GPU_MEMORY
        );
        return no(reason::TOO_FEW_GPUS, message);
    }
    let fewer = Layout { gpus: u32::try_from(most).unwrap_or(u32::MAX), ..*layout };
    let lower = match most > 0 && situation.fits(&fewer) {
        true => format!("set accelerator.perRank to at most {most}, "),
        false => String::new(),
    };
    let nodes = match most {
        0 => "add a node with GPUs".to_owned(),
        _ => remedy::nodes(situation, layout, plan, node),
    };
    let message = format!(
        "one rank asks for {}, and no node has more than {most}; {lower}set {}, or {nodes}",
        gpu_count(plan.demand.gpus),
        on_cpus(situation, "accelerator.device to Cpu")
    );
    no(reason::TOO_FEW_GPUS, message)
}

fn gpu_count(count: u64) -> String {
    if count == 1 { "1 GPU".to_owned() } else { format!("{count} GPUs") }
}

/// What to set so that CPUs serve: `device`, and what else keeps them from it.
fn on_cpus(situation: &Situation, device: &str) -> String {
    let Some(asked) = situation.deployment.quantization.filter(|asked| !asked.runs_on(Device::Cpu)) else {
        return device.to_owned();
    };
    let quantization = format!("model.quantization to Int8, as {asked} is for GPUs only");
    match situation.deployment.device {
        DeviceChoice::Auto => quantization,
        _ => format!("{quantization}, and {device}"),
    }
}

fn room(situation: &Situation, layout: &Layout, plan: &mut CapacityPlan) -> Option<Finding> {
    if plan.room >= u64::from(plan.ranks) {
        return None;
    }
    let demand = plan.demand;
    // Of the nodes that have the GPUs and the cores, the one with most memory decides; without such a node, cores do.
    let enough =
        |node: &&&ObservedNode| node.allocatable.gpus >= demand.gpus && node.allocatable.cpu >= demand.cpu;
    let memory = |node: &&&ObservedNode| match plan.device {
        Device::Cpu => node.allocatable.memory,
        Device::Gpu => node.gpu_memory,
    };
    let Some(node) = situation.nodes.0.iter().filter(enough).max_by_key(memory) else {
        let message = format!(
            "one rank requests {} CPUs, and no node has as many for pods; lower template.resources.requests.cpu, or \
             add a node",
            demand.cpu.div_ceil(1000)
        );
        return no(reason::NODE_TOO_SMALL, message);
    };
    let message = match plan.device {
        Device::Gpu if node.gpu_memory == 0 => format!(
            "one rank needs {} on each GPU ({}), and no node tells how much its GPUs have; label the nodes {}=MIB, as \
             NVIDIA's GPU feature discovery does",
            readable(plan.of_each_gpu()),
            asked(plan),
            name::LABEL_GPU_MEMORY
        ),
        Device::Gpu if node.allocatable.memory < demand.memory => format!(
            "one rank requests {} of its node's own memory beside the GPUs, and {} has {} for pods; add a node with \
             more",
            readable(demand.memory),
            node.name,
            readable(node.allocatable.memory)
        ),
        _ => {
            let ceiling = node.allocatable.memory;
            let instead = remedy::instead(situation, layout, plan, ceiling);
            let nodes = remedy::nodes(situation, layout, plan, node);
            format!("{}, and {}; {instead}{nodes}", wanted(plan), offered(plan, node))
        }
    };
    no(reason::NODE_TOO_SMALL, message)
}

/// What the ranks need.
fn wanted(plan: &CapacityPlan) -> String {
    let one = match plan.device {
        Device::Cpu => readable(plan.demand.memory),
        Device::Gpu => {
            format!("{} on {}", readable(plan.needed), remedy::gpus(plan.gpus.into(), plan.of_each_gpu()))
        }
    };
    match plan.ranks {
        1 => format!("one rank needs {one} ({})", asked(plan)),
        ranks => format!("each of {ranks} ranks needs {one} ({})", asked(plan)),
    }
}

/// What nodes have.
fn offered(plan: &CapacityPlan, node: &ObservedNode) -> String {
    if plan.room > 0 {
        return format!("the nodes hold {} of these ranks when empty", plan.room);
    }
    let has = match plan.device {
        Device::Cpu => readable(node.allocatable.memory),
        Device::Gpu => remedy::gpus(node.allocatable.gpus, node.gpu_memory),
    };
    format!("the largest node, {}, has {has} for pods", node.name)
}

fn asked(plan: &CapacityPlan) -> String {
    format!("quantization {}, context {}", plan.quantization, plan.context_length)
}
