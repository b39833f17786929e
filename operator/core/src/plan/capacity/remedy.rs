//! What would fit instead of what does not: the nearest changes of the spec, and the nodes that are missing.

use super::CapacityPlan;
use super::layout::Layout;
use super::nodes::takes;
use super::situation::{GPUS, Situation};
use crate::observed::ObservedNode;
use crate::observed::quantity::readable;
use coterie_api::launch::Device;

/// What to set so that the ranks fit, ready to be followed by one more suggestion. Also kept in the plan, for programs.
/// `ceiling` is the memory, bytes, that a request of the template must not exceed.
pub(super) fn instead(
    situation: &Situation,
    layout: &Layout,
    plan: &mut CapacityPlan,
    ceiling: u64,
) -> String {
    let template = &situation.deployment.template;
    if template.memory_request.is_some_and(|request| request > ceiling) {
        return "lower template.resources.requests.memory, or ".to_owned();
    }
    let nearest = nearest(situation, layout);
    if nearest.is_empty() {
        return String::new();
    }
    let texts: Vec<String> = nearest.iter().map(|to| change(situation, layout, to)).collect();
    let text = texts.join(" or ");
    let remedy = format!("set {text}, or ");
    plan.would_fit = Some(text);
    remedy
}

/// Layouts that fit and differ least, each in its own way.
fn nearest(situation: &Situation, layout: &Layout) -> Vec<Layout> {
    let fits = |layout: &Layout| situation.fits(layout);
    let quantized = |quantization| Layout { quantization, ..*layout };
    let shortened = |layout: Layout| {
        let context = situation.longest_context(&layout)?;
        (context < layout.context_length).then_some(Layout { context_length: context, ..layout })
    };
    let others: Vec<Layout> = situation
        .known_on(layout.device)
        .into_iter()
        .filter(|other| *other != layout.quantization)
        .map(quantized)
        .collect();
    let smaller = others.iter().copied().find(fits);
    let shorter = shortened(*layout);
    let both = || others.last().copied().filter(|_| smaller.is_none()).and_then(shortened);
    let mut found: Vec<Layout> = smaller.into_iter().chain(shorter.or_else(both)).collect();

    let fewer_copies = (0..layout.redundant).rev();
    found.extend(fewer_copies.map(|redundant| Layout { redundant, ..*layout }).find(fits));
    let more_ranks = situation.widths_from(layout.ranks + 1).into_iter();
    found.extend(more_ranks.map(|ranks| Layout { ranks, ..*layout }).find(fits));
    if layout.device == Device::Gpu {
        let more_gpus = GPUS.into_iter().filter(|gpus| *gpus > layout.gpus);
        found.extend(more_gpus.map(|gpus| Layout { gpus, ..*layout }).find(fits));
    }
    if found.is_empty() {
        found.extend(anything(situation, layout).into_iter().find(fits));
    }
    found
}

/// Every width, quantization and number of GPUs at the same context.
fn anything(situation: &Situation, layout: &Layout) -> Vec<Layout> {
    let gpus: &[u32] = if layout.device == Device::Gpu { &GPUS } else { &[0] };
    let mut layouts = Vec::new();
    for ranks in situation.widths_from(1) {
        for quantization in situation.known_on(layout.device) {
            layouts.extend(gpus.iter().map(|gpus| Layout { ranks, quantization, gpus: *gpus, ..*layout }));
        }
    }
    layouts
}

/// How to ask for `to` instead of `from`.
fn change(situation: &Situation, from: &Layout, to: &Layout) -> String {
    let mut settings = Vec::new();
    if to.quantization != from.quantization {
        settings.push(format!("model.quantization: {}", to.quantization));
    }
    if to.context_length != from.context_length {
        settings.push(format!("model.contextLength: {}", to.context_length));
    }
    if to.redundant != from.redundant {
        settings.push(format!("experts.redundant: {}", to.redundant));
    }
    if to.ranks != from.ranks {
        settings.push(format!("ranks: {}", to.ranks));
    }
    if to.gpus != from.gpus {
        settings.push(format!("accelerator.perRank: {}", to.gpus));
    }
    let text = settings.join(" with ");
    if to.context_length == from.context_length {
        format!("{text} (needs {})", readable(to.needed(situation.inspection)))
    } else {
        text
    }
}

/// The nodes to add; `nearest` is the node that comes nearest. Kept in the plan if no change of the spec is.
pub(super) fn nodes(
    situation: &Situation,
    layout: &Layout,
    plan: &mut CapacityPlan,
    nearest: &ObservedNode,
) -> String {
    let options: Vec<String> = match layout.device {
        Device::Cpu => {
            let each = if layout.ranks == 1 { "a node with" } else { "nodes that each have" };
            let sized = format!("{each} at least {}", readable(plan.demand.memory));
            [sized].into_iter().chain(more_nodes(situation, layout, nearest)).collect()
        }
        Device::Gpu => {
            let larger = larger_node(situation, layout, nearest);
            larger.into_iter().chain(more_nodes(situation, layout, nearest)).collect()
        }
    };
    let text = match options.is_empty() {
        true => format!("add nodes whose GPUs have at least {} each", readable(plan.of_each_gpu())),
        false => format!("add {}", options.join(" or ")),
    };
    plan.would_fit.get_or_insert_with(|| text.clone());
    text
}

/// One node with more GPUs of the same kind, for a replica of one rank.
fn larger_node(situation: &Situation, layout: &Layout, nearest: &ObservedNode) -> Option<String> {
    let whole = |gpus| Layout { ranks: 1, gpus, redundant: 0, ..*layout };
    let held = |to: &Layout| {
        let mut node = nearest.clone();
        node.allocatable.gpus = u64::from(to.gpus);
        takes(&node, situation.demand(to)) > 0
    };
    let more = GPUS.into_iter().filter(|gpus| u64::from(*gpus) > nearest.allocatable.gpus);
    let to = more.map(whole).find(held)?;
    Some(format!("a node with {} (then {})", gpus(to.gpus.into(), nearest.gpu_memory), shape(layout, &to)))
}

/// The fewest nodes like `nearest` beside those that there are, and how to use them.
fn more_nodes(situation: &Situation, layout: &Layout, nearest: &ObservedNode) -> Option<String> {
    let missing = |to: &Layout| {
        let demand = situation.demand(to);
        let lacking = u64::from(to.ranks).saturating_sub(situation.nodes.room(demand));
        Some(lacking.div_ceil(Some(takes(nearest, demand)).filter(|takes| *takes > 0)?))
    };
    let alike = |to: &Layout| to.quantization == layout.quantization && situation.within_limit(to);
    let alike = anything(situation, layout).into_iter().filter(alike);
    let counted = alike.filter_map(|to| Some((missing(&to).filter(|count| *count > 0)?, to)));
    let (count, to) = counted.min_by_key(|(count, to)| (*count, to.ranks, to.gpus))?;
    let nodes = if count == 1 { "a node".to_owned() } else { format!("{count} nodes") };
    Some(format!("{nodes} like {} (then {})", nearest.name, shape(layout, &to)))
}

/// How to use nodes that are added; `from` is what is asked for now.
fn shape(from: &Layout, to: &Layout) -> String {
    let mut settings = vec![format!("ranks: {}", to.ranks)];
    if to.gpus > 0 {
        settings.push(format!("accelerator.perRank: {}", to.gpus));
    }
    if to.redundant != from.redundant {
        settings.push(format!("experts.redundant: {}", to.redundant));
    }
    settings.join(" with ")
}

/// `8 GPUs of 79.6 GiB`.
pub(super) fn gpus(count: u64, memory: u64) -> String {
    format!("{count} {} of {}", if count == 1 { "GPU" } else { "GPUs" }, readable(memory))
}
