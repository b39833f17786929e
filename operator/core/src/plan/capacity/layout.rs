//! One way to hold a model on ranks, and what a rank needs for it.
//!
//! Every rank of a replica has the weights that are no experts, and of each layer's experts as many as it has slots.
//! A request lives on one rank, so each rank has KV cache and state for one longest request, and some for others beside
//! it. The GPUs of one rank hold weights, cache and states between them in equal parts; all other working memory is on
//! each of them.

use crate::observed::Free;
use coterie_api::deployment::status::CapacityParts;
use coterie_api::launch::{Device, Inspection, Quantization};

const MIB: u64 = 1 << 20;

/// One way to hold a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What ranks compute on.
    pub device: Device,
    /// How they hold the weights.
    pub quantization: Quantization,
    /// Longest request, tokens.
    pub context_length: u32,
    /// Pods of one replica; at least 1.
    pub ranks: u32,
    /// Slots of each layer beyond one for every expert, all ranks together.
    pub redundant: u32,
    /// GPUs of one rank; 0 on the CPU.
    pub gpus: u32,
}

/// What a rank takes from its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// What its pod requests.
    pub request: Free,
    /// Memory on each of its GPUs, bytes; 0 on the CPU.
    pub of_each_gpu: u64,
}

impl Layout {
    /// Experts of one layer that one rank has room for.
    pub fn slots(&self, experts: u32) -> u32 {
        let all = u64::from(experts) + u64::from(self.redundant);
        // No rank holds an expert twice.
        let most = all.div_ceil(u64::from(self.ranks.max(1))).min(u64::from(experts));
        u32::try_from(most).unwrap_or(experts)
    }

    /// What one rank's memory is for, all its GPUs together. Where nobody knows which weights are experts, every rank
    /// is planned to have all.
    pub fn parts(&self, inspection: &Inspection) -> CapacityParts {
        let all = inspection.weight_bytes.of(self.quantization);
        let experts = inspection.expert_bytes.map_or(0, |bytes| bytes.of(self.quantization)).min(all);
        let slots = u128::from(self.slots(inspection.experts));
        let share = (u128::from(experts) * slots).div_ceil(u128::from(inspection.experts.max(1)));
        let cache = u128::from(inspection.kv_bytes_per_token) * u128::from(self.context_length);
        let spare = inspection.spare_bytes.min(inspection.working_bytes);
        let own = u128::from(inspection.working_bytes - spare) * u128::from(self.gpus.max(1));
        CapacityParts {
            weights: all - experts,
            experts: saturating(share),
            kv_cache: saturating(cache),
            state: inspection.state_bytes,
            working: saturating(own + u128::from(spare)),
        }
    }

    /// Memory of one rank, all its GPUs together: the parts with headroom, bytes.
    pub fn needed(&self, inspection: &Inspection) -> u64 {
        with_headroom(sum(&self.parts(inspection)))
    }

    /// What a rank takes from its node, as far as its memory is concerned. A rank on GPUs holds its weights there: of
    /// the node it needs as much as each GPU has for itself.
    pub fn demand(&self, inspection: &Inspection) -> Demand {
        let needed = self.needed(inspection);
        match self.device {
            Device::Cpu => {
                Demand { request: Free { memory: needed, ..Free::default() }, ..Demand::default() }
            }
            Device::Gpu => {
                let own = inspection.working_bytes.saturating_sub(inspection.spare_bytes);
                let memory = with_headroom(u128::from(own));
                let gpus = u64::from(self.gpus);
                Demand {
                    request: Free { memory, gpus, ..Free::default() },
                    of_each_gpu: needed.div_ceil(gpus.max(1)),
                }
            }
        }
    }
}

fn sum(parts: &CapacityParts) -> u128 {
    let CapacityParts { weights, experts, kv_cache, state, working } = *parts;
    [weights, experts, kv_cache, state, working].map(u128::from).iter().sum()
}

/// 5 % more, rounded up to MiB.
fn with_headroom(bytes: u128) -> u64 {
    let rounded = (bytes * 21).div_ceil(20).div_ceil(u128::from(MIB)) * u128::from(MIB);
    u64::try_from(rounded).unwrap_or(u64::MAX - u64::MAX % MIB)
}

fn saturating(bytes: u128) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
