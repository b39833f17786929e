//! Why a rank cannot be placed, and what would fit instead.

use super::{CapacityPlan, longest_context};
use crate::observed::ObservedNode;
use crate::observed::quantity::readable;
use crate::plan::{Finding, State};
use crate::validate::Deployment;
use coterie_api::condition::reason;
use coterie_api::deployment::status::WeightsStatus;
use coterie_api::launch::Device;

/// Writes the first obstacle that there is into the plan.
pub(super) fn obstacles(
    deployment: &Deployment,
    weights: &WeightsStatus,
    eligible: &[&ObservedNode],
    plan: &mut CapacityPlan,
) {
    if let Some(asked) = deployment.context_length.filter(|asked| *asked > weights.inspection.context_length)
    {
        let message = format!(
            "model.contextLength is {asked}, and this {} was made for {} tokens; set at most that, or leave it out",
            weights.inspection.architecture, weights.inspection.context_length
        );
        plan.invalid = Some(Finding::new(State::False, reason::CONTEXT_TOO_LONG, message));
        return;
    }
    plan.unplaceable = device(weights, plan)
        .or_else(|| limit(deployment, weights, plan))
        .or_else(|| selection(deployment, eligible))
        .or_else(|| gpus(eligible, plan))
        .or_else(|| node_size(deployment, weights, eligible, plan));
}

fn device(weights: &WeightsStatus, plan: &CapacityPlan) -> Option<Finding> {
    if weights.inspection.devices.contains(&plan.device) {
        return None;
    }
    let (asked, other) = match plan.device {
        Device::Gpu => ("GPUs", "Cpu"),
        Device::Cpu => ("the CPU", "Gpu"),
    };
    let message = format!(
        "this build of the runtime cannot serve {} on {asked}; set accelerator.device to {other} or Auto",
        weights.inspection.architecture
    );
    Some(Finding::new(State::False, reason::DEVICE_UNSUPPORTED, message))
}

fn limit(deployment: &Deployment, weights: &WeightsStatus, plan: &mut CapacityPlan) -> Option<Finding> {
    let limit = plan.limit.filter(|limit| plan.demand.memory > *limit)?;
    let remedy = remedy(deployment, weights, plan, limit);
    let message = format!(
        "one rank needs {} ({}), and template.resources.limits.memory is {}; {}raise the limit",
        readable(plan.demand.memory),
        asked(plan),
        readable(limit),
        remedy
    );
    Some(Finding::new(State::False, reason::MEMORY_LIMIT_TOO_SMALL, message))
}

fn selection(deployment: &Deployment, eligible: &[&ObservedNode]) -> Option<Finding> {
    if !eligible.is_empty() {
        return None;
    }
    let selector = &deployment.template.node_selector;
    let labels: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let which =
        if labels.is_empty() { String::new() } else { format!(" with label {}", labels.join(" and ")) };
    let message = format!(
        "there is no node{which} whose taints are tolerated; label or add a node, or change template.nodeSelector or \
         template.tolerations"
    );
    Some(Finding::new(State::False, reason::NO_ELIGIBLE_NODE, message))
}

fn gpus(eligible: &[&ObservedNode], plan: &CapacityPlan) -> Option<Finding> {
    let most = eligible.iter().map(|node| node.allocatable.gpus).max().unwrap_or(0);
    if plan.demand.gpus <= most {
        return None;
    }
    let lower = if most > 0 { format!("set accelerator.perRank to at most {most}, ") } else { String::new() };
    let message = format!(
        "one rank asks for {} GPUs, and no node has more than {most}; {lower}set accelerator.device to Cpu, or add a \
         node with GPUs",
        plan.demand.gpus
    );
    Some(Finding::new(State::False, reason::TOO_FEW_GPUS, message))
}

fn node_size(
    deployment: &Deployment,
    weights: &WeightsStatus,
    eligible: &[&ObservedNode],
    plan: &mut CapacityPlan,
) -> Option<Finding> {
    let demand = plan.demand;
    if eligible.iter().any(|node| node.allocatable.holds(demand)) {
        return None;
    }
    // Of the nodes that have the GPUs and the cores, the one with most memory decides; without such a node, cores do.
    let enough =
        |node: &&&ObservedNode| node.allocatable.gpus >= demand.gpus && node.allocatable.cpu >= demand.cpu;
    let message = match eligible.iter().filter(enough).max_by_key(|node| node.allocatable.memory) {
        Some(node) => {
            let ceiling = node.allocatable.memory;
            let remedy = remedy(deployment, weights, plan, ceiling);
            format!(
                "one rank needs {} ({}), and the largest node, {}, has {} for pods; {remedy}add a node with at least \
                 {}",
                readable(demand.memory),
                asked(plan),
                node.name,
                readable(ceiling),
                readable(demand.memory)
            )
        }
        None => format!(
            "one rank requests {} CPUs, and no node has as many for pods; lower template.resources.requests.cpu, or \
             add a node",
            demand.cpu.div_ceil(1000)
        ),
    };
    Some(Finding::new(State::False, reason::NODE_TOO_SMALL, message))
}

fn asked(plan: &CapacityPlan) -> String {
    format!("quantization {}, context {}", plan.quantization, plan.context_length)
}

/// What to set so that a rank needs at most `ceiling` bytes, ready to be followed by one more suggestion. Also kept in
/// the plan, for programs.
fn remedy(deployment: &Deployment, weights: &WeightsStatus, plan: &mut CapacityPlan, ceiling: u64) -> String {
    if plan.device == Device::Gpu {
        return String::new();
    }
    if deployment.template.memory_request.is_some_and(|request| request > ceiling) {
        return "lower template.resources.requests.memory, or ".to_owned();
    }
    let mut options = Vec::new();
    let smaller = plan
        .options
        .iter()
        .find(|option| option.needed <= ceiling && option.quantization != plan.quantization);
    if let Some(option) = smaller {
        options.push(format!(
            "model.quantization: {} (needs {})",
            option.quantization,
            readable(option.needed)
        ));
    }
    let shorter = longest_context(weights, plan.quantization, ceiling);
    if let Some(context) = shorter.filter(|context| *context < plan.context_length) {
        options.push(format!("model.contextLength: {context}"));
    } else if let (None, Some(last)) =
        (smaller, plan.options.last().filter(|o| o.quantization != plan.quantization))
        && let Some(context) = longest_context(weights, last.quantization, ceiling)
    {
        options
            .push(format!("model.quantization: {} with model.contextLength: {context}", last.quantization));
    }
    if options.is_empty() {
        return String::new();
    }
    let text = options.join(" or ");
    let remedy = format!("set {text}, or ");
    plan.would_fit = Some(text);
    remedy
}
