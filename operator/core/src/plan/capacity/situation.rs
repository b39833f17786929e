//! What a layout is judged by, and the choice among layouts.

use super::layout::{Demand, Layout};
use super::nodes::Nodes;
use crate::validate::Deployment;
use coterie_api::expert_map::RANKS_LIMIT;
use coterie_api::launch::{Device, Inspection, Quantization};

/// Numbers of GPUs that a rank is given where none was asked for: heads and widths of models divide by them.
pub(super) const GPUS: [u32; 5] = [1, 2, 4, 8, 16];
/// A context is shortened in such steps, tokens.
const CONTEXT_STEP: u32 = 256;

/// What a layout is judged by.
pub(super) struct Situation<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) inspection: &'a Inspection,
    pub(super) nodes: Nodes<'a>,
    /// Whether there is a node at all, eligible or not.
    pub(super) any_node: bool,
    /// Whether there is an image of the runtime for GPUs.
    pub(super) gpu_image: bool,
}

impl Situation<'_> {
    /// What the model can be served on here.
    pub(super) fn devices(&self) -> Vec<Device> {
        let has_image = |device: &Device| *device == Device::Cpu || self.gpu_image;
        self.inspection.devices.iter().copied().filter(has_image).collect()
    }

    /// What a rank takes from its node, with what the template requests.
    pub(super) fn demand(&self, layout: &Layout) -> Demand {
        let template = &self.deployment.template;
        let mut demand = layout.demand(self.inspection);
        demand.request.memory = demand.request.memory.max(template.memory_request.unwrap_or(0));
        demand.request.cpu = template.cpu_request.unwrap_or(0);
        demand
    }

    pub(super) fn within_limit(&self, layout: &Layout) -> bool {
        let limit = self.deployment.template.memory_limit;
        limit.is_none_or(|limit| self.demand(layout).request.memory <= limit)
    }

    /// Whether empty nodes hold all ranks of one replica.
    pub(super) fn nodes_hold(&self, layout: &Layout) -> bool {
        self.nodes.room(self.demand(layout)) >= u64::from(layout.ranks)
    }

    pub(super) fn fits(&self, layout: &Layout) -> bool {
        self.within_limit(layout) && self.nodes_hold(layout)
    }

    /// Slots beyond one for every expert that so many ranks can have in one layer: no rank holds an expert twice.
    pub(super) fn most_copies(&self, ranks: u32) -> u64 {
        u64::from(self.inspection.experts.max(1)) * u64::from(ranks.saturating_sub(1))
    }

    /// The longest context that the model was made for and that fits, in steps of 256 tokens.
    pub(super) fn longest_context(&self, layout: &Layout) -> Option<u32> {
        let fits = |steps: u32| self.fits(&Layout { context_length: steps * CONTEXT_STEP, ..*layout });
        let (mut low, mut high) = (0, self.inspection.context_length / CONTEXT_STEP + 1);
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if fits(middle) { low = middle } else { high = middle }
        }
        (low > 0).then_some(low * CONTEXT_STEP)
    }

    fn quantizations(&self, device: Device) -> Vec<Quantization> {
        self.deployment.quantization.map_or_else(|| self.known_on(device), |asked| vec![asked])
    }

    /// How ranks can hold the weights on `device`, best first.
    pub(super) fn known_on(&self, device: Device) -> Vec<Quantization> {
        self.inspection.weight_bytes.best_first_on(device)
    }

    /// Numbers of ranks worth trying, fewest first: what was asked for, else those with which a rank has fewer slots
    /// than with one rank less. Who asks for redundant experts asks for as many ranks as can hold them.
    pub(super) fn widths(&self) -> Vec<u32> {
        self.deployment.ranks.map_or_else(|| self.widths_from(1), |asked| vec![asked])
    }

    /// Those of at least `first` ranks.
    pub(super) fn widths_from(&self, first: u32) -> Vec<u32> {
        let (experts, redundant) = (self.inspection.experts.max(1), self.deployment.experts.redundant);
        let slots = |ranks| self.layout(Device::Cpu, ranks, 0).slots(experts);
        let first = first.max(1 + redundant.div_ceil(experts));
        let last = experts.min(RANKS_LIMIT as u32);
        (first..=last).filter(|ranks| *ranks == first || slots(*ranks) < slots(*ranks - 1)).collect()
    }

    /// Numbers of GPUs of a rank worth trying, fewest first.
    pub(super) fn gpus(&self, device: Device) -> Vec<u32> {
        let most = self.nodes.most_gpus();
        match (device, self.deployment.gpus_per_rank) {
            (Device::Cpu, _) => vec![0],
            (Device::Gpu, Some(asked)) => vec![asked],
            (Device::Gpu, None) => {
                let most = most.min(self.inspection.most_gpus.into());
                GPUS.into_iter().filter(|gpus| *gpus == 1 || u64::from(*gpus) <= most).collect()
            }
        }
    }

    pub(super) fn layout(&self, device: Device, ranks: u32, gpus: u32) -> Layout {
        Layout {
            device,
            quantization: Quantization::Int8,
            context_length: self.deployment.context_length.unwrap_or(self.inspection.context_length),
            ranks,
            redundant: self.deployment.experts.redundant,
            gpus,
        }
    }

    /// Every way to hold the model on so many ranks, best quantization and fewest GPUs first; never empty.
    pub(super) fn layouts(&self, device: Device, ranks: u32) -> Vec<Layout> {
        let gpus = self.gpus(device);
        let with = |quantization| {
            let layout = move |gpus: &u32| Layout { quantization, ..self.layout(device, ranks, *gpus) };
            gpus.iter().map(layout).collect::<Vec<_>>()
        };
        self.quantizations(device).into_iter().flat_map(with).collect()
    }

    /// The layout to take: the fewest ranks that empty nodes can hold, because each has its own copy of everything but
    /// the experts, and a network between it and the others; of their quantizations the best within the memory limit;
    /// the fewest GPUs that do. Without any that fits, the smallest within the limit.
    pub(super) fn choose(&self, device: Device) -> Layout {
        let widths = self.widths();
        let held = |ranks: &u32| self.layouts(device, *ranks).iter().any(|layout| self.nodes_hold(layout));
        let ranks = widths.iter().copied().find(held).or(widths.first().copied()).unwrap_or(1);
        let layouts = self.layouts(device, ranks);
        let most_gpus = layouts.iter().map(|layout| layout.gpus).max().unwrap_or(0);
        let mut smallest = layouts.iter().rev().filter(|layout| layout.gpus == most_gpus);
        let best = layouts.iter().find(|layout| self.fits(layout));
        let chosen = best.or_else(|| smallest.clone().find(|layout| self.within_limit(layout)));
        chosen.or(smallest.next()).copied().unwrap_or_else(|| self.layout(device, ranks, most_gpus))
    }
}
