//! Whether a GPU can serve a model: sizes that kernels take, and memory.

use super::attention::{LATENT_BYTES_PER_TOKEN, bytes_per_token, part_bytes};
use super::batch::{BLOCKS_OF_CHUNK, SPREAD};
use super::graphs;
use super::lightning;
use super::weights::STAGE;
use crate::block_pool::BLOCK_SIZE;
use crate::engine::LOGIT_ROWS;
use crate::inspect;
use crate::load_error::LoadError;
use crate::model::config::Config;
use crate::model::config::plan::{AttentionPlan, LatentPlan, Mixer, Mlp, QkNorm};
use crate::model::{Need, Room};
use coterie_kernels::cuda::attention::{self, LATENT};
use coterie_kernels::cuda::{gate, lightning as kernel, norm};

/// Whether there are kernels for every size of the model.
pub(crate) fn shapes(config: &Config) -> Result<(), LoadError> {
    let at_most = |what, found: usize, limit: usize| match found <= limit {
        true => Ok(()),
        false => Err(LoadError::NoKernel { what, found, limit }),
    };
    let normed = |width| at_most("the width of a norm", width, norm::MOST);
    normed(config.hidden)?;
    for layer in &config.layers {
        match &layer.mixer {
            Mixer::Attention(AttentionPlan { shape, qk_norm, .. }) => {
                let widest = attention::WIDTHS[attention::WIDTHS.len() - 1];
                at_most("the width of a head", shape.head_dim, widest)?;
                if *qk_norm == QkNorm::Whole {
                    normed(shape.heads * shape.head_dim)?;
                }
            }
            Mixer::Latent(LatentPlan { shape, q_latent, .. }) => {
                at_most("the width of a latent", shape.latent, LATENT[0])?;
                at_most("the width of a latent's rotated key", shape.rope, LATENT[1])?;
                normed(q_latent.unwrap_or(0))?;
            }
            Mixer::Lightning(plan) => {
                at_most("the width of a head of lightning attention", plan.head_dim, kernel::MOST)?;
                normed(plan.heads() * plan.head_dim)?;
            }
        }
        if let Mlp::Moe(moe) = &layer.mlp {
            at_most("the number of experts", moe.experts, gate::MOST)?;
            at_most("the number of experts of a token", moe.rule.per_token, gate::MOST_CHOSEN)?;
            let groups = moe.rule.groups.map_or(0, |groups| groups.count);
            at_most("the number of groups of experts", groups, gate::MOST_CHOSEN)?;
        }
    }
    Ok(())
}

/// What the driver keeps of a recorded launch, bytes. None was measured yet.
const LAUNCH_BYTES: usize = 4 << 10;

/// Launches of a layer at most.
const LAUNCHES: usize = 48;

/// Whether `free` bytes are enough for the weights, all caches, a step, and `graphs` if there are any.
pub(super) fn memory(need: &Need<'_>, graphs: bool, free: usize) -> Result<(), LoadError> {
    let Need { config, weights, room, draft, .. } = *need;
    let last = config.layers.last().filter(|_| draft);
    let layers = config.layers.iter().chain(last);
    let cache: usize = layers.map(|layer| cache_bytes(&layer.mixer, room)).sum();
    let spread = config.layers.iter().map(|layer| spread_bytes(&layer.mixer)).max().unwrap_or(0);
    // Buffers come in powers of two: up to twice of what a step needs.
    let step = 2 * (inspect::step_bytes(config, room.rows, LOGIT_ROWS) + spread);
    let of_graphs = if graphs { graph_bytes(config, spread) } else { 0 };
    // What loading has in hand beside the weights goes to steps afterwards, in other sizes.
    let needed = [STAGE, cache, step, of_graphs].into_iter().fold(weights, usize::saturating_add);
    match needed <= free {
        true => Ok(()),
        false => Err(LoadError::NoGpuMemory { needed, weights, cache, free }),
    }
}

/// What graphs take: memory for one step, which they share, and of each its arrays and what the driver keeps.
fn graph_bytes(config: &Config, spread: usize) -> usize {
    let step = inspect::step_bytes(config, graphs::MOST_ROWS, graphs::MOST_ROWS) + spread;
    // Tables are the largest of the arrays by far.
    let arrays = SPREAD * BLOCKS_OF_CHUNK * size_of::<u32>() + (64 << 10);
    let launches = (config.layers.len() + 1) * LAUNCHES * LAUNCH_BYTES;
    2 * step + graphs::MOST * (arrays + launches)
}

/// What decoding with keys spread over blocks leaves in memory at most.
fn spread_bytes(mixer: &Mixer) -> usize {
    let of = |heads: usize, width: usize| SPREAD * heads * part_bytes(width);
    match mixer {
        Mixer::Attention(AttentionPlan { shape, .. }) => of(shape.heads, shape.head_dim),
        Mixer::Latent(LatentPlan { shape, .. }) => of(shape.heads, LATENT[0]),
        Mixer::Lightning(_) => 0,
    }
}

fn cache_bytes(mixer: &Mixer, room: Room) -> usize {
    let of_tokens = |bytes: usize| (room.blocks * BLOCK_SIZE).saturating_mul(bytes);
    match mixer {
        Mixer::Attention(AttentionPlan { shape, .. }) => {
            let width = attention::width(shape.head_dim).unwrap_or(shape.head_dim);
            of_tokens(bytes_per_token(shape, width))
        }
        Mixer::Latent(_) => of_tokens(LATENT_BYTES_PER_TOKEN),
        Mixer::Lightning(plan) => {
            let [state, snapshot] = lightning::floats(plan);
            let floats = state * room.states.slots + snapshot * room.states.snapshots;
            floats * size_of::<f32>()
        }
    }
}
