//! Reads a model folder's headers and says what serving it takes.

use crate::backend::LatentShape;
use crate::backend::cuda::room;
use crate::digest;
use crate::engine::{LOGIT_ROWS, MAX_RUNNING, SNAPSHOTS, SPARE_TOKENS, STEP_TOKENS};
use crate::load_error::LoadError;
use crate::model;
use crate::model::config::Config;
use crate::model::config::plan::{AttentionPlan, LatentPlan, Mixer, Mlp};
use crate::weights::shard::Checkpoint;
use crate::weights::tally::Tally;
use coterie_api::launch::{Device, DraftModule, Inspection};
use std::path::Path;

/// What the model in `dir` is and needs, and the devices that there is code for. Every check that loading makes is made,
/// on the headers alone; of the weights only what the digest samples is read (see [`digest`]).
pub fn inspect(dir: &Path) -> Result<Inspection, LoadError> {
    let config = Config::read(dir)?;
    let checkpoint = Checkpoint::open(dir)?;
    let tally = model::weigh(&checkpoint, &config)?;
    let draft = model::weigh_draft_module(&checkpoint, &config);
    inspection(dir, &config, &tally, draft.as_ref())
}

/// What the model that `config` describes is and needs, where its tensors come to `tally`, and those of its draft module
/// to `draft`.
pub(crate) fn inspection(
    dir: &Path,
    config: &Config,
    tally: &Tally,
    draft: Option<&Tally>,
) -> Result<Inspection, LoadError> {
    let parameters = tally.values.get();
    let [experts, experts_per_token] = config.experts();
    let used = u128::from(tally.expert_values.get()) * experts_per_token as u128 / experts.max(1) as u128;
    Ok(Inspection {
        architecture: config.architecture.to_owned(),
        parameters,
        active_parameters: parameters - tally.expert_values.get() + used as u64,
        layers: config.layers.len() as u32,
        expert_layers: Some(config.expert_layers().count() as u32),
        experts: experts as u32,
        experts_per_token: experts_per_token as u32,
        context_length: config.context_length as u32,
        weight_bytes: tally.weight_bytes(),
        expert_bytes: Some(tally.expert_weight_bytes()),
        kv_bytes_per_token: model::state_bytes_per_token(config) as u64,
        state_bytes: model::running_state_bytes(config) as u64,
        working_bytes: (working_bytes(config) + spare_bytes(config)) as u64,
        spare_bytes: spare_bytes(config) as u64,
        draft_module: draft.map(|tally| DraftModule {
            weight_bytes: tally.weight_bytes(),
            kv_bytes_per_token: model::draft_bytes_per_token(config) as u64,
            spare_bytes: (SPARE_TOKENS * model::draft_bytes_per_token(config)) as u64,
        }),
        digest: digest::text(&digest::digest(dir)?),
        devices: match room::shapes(config) {
            Ok(()) => vec![Device::Cpu, Device::Gpu],
            Err(_) => vec![Device::Cpu],
        },
        most_gpus: 1,
    })
}

/// Memory beside the weights, one whole context of cache, and what is [spare](spare_bytes). Checked against a process:
/// the talking model (hidden 576, vocabulary 49,152), serving 8 requests of 740 tokens at once, had 67 MB beside its
/// weights and the cache that it had touched, its program file included; the figure below has 99 MB for that.
fn working_bytes(config: &Config) -> usize {
    // Beside the logits the sampler's copy and order of one row.
    PROCESS_BYTES + config.vocabulary * TOKENIZER_BYTES + step_bytes(config, STEP_TOKENS, LOGIT_ROWS + 3)
}

/// Memory of a step of so many tokens: activations, so many rows of logits, and the rotary embedding's table.
pub(crate) fn step_bytes(config: &Config, tokens: usize, logit_rows: usize) -> usize {
    let Config { hidden, vocabulary, .. } = *config;
    // The most that is alive at once in a full step, in f32 values a row. Mixer: the residual stream, its norm, and
    // what the mixer makes. Experts: for each send the token, gate, up, their product and the answer; a width's memory
    // is kept for its next use, so both count.
    let mixer = config.layers.iter().map(|layer| mixer_width(&layer.mixer)).max().unwrap_or(0);
    let mlp = config.layers.iter().map(|layer| mlp_width(&layer.mlp, hidden)).max().unwrap_or(0);
    let step = tokens * (4 * hidden + mixer + mlp);
    let logits = logit_rows * vocabulary;
    let rotary = config.layers.iter().map(|layer| rotary_dim(&layer.mixer)).max().unwrap_or(0);
    let rope = config.context_length.next_power_of_two() * rotary;
    size_of::<f32>() * (step + logits + rope)
}

/// Cache and running states for requests beside the longest, and snapshots.
fn spare_bytes(config: &Config) -> usize {
    SPARE_TOKENS * model::state_bytes_per_token(config)
        + (MAX_RUNNING - 1) * model::running_state_bytes(config)
        + SNAPSHOTS * model::snapshot_bytes(config)
}

/// Values a row that a mixer makes beside its norm and its answer: of attention q, k, v and what was attended.
fn mixer_width(mixer: &Mixer) -> usize {
    match mixer {
        Mixer::Attention(AttentionPlan { shape, .. }) => 2 * (shape.heads + shape.kv_heads) * shape.head_dim,
        Mixer::Latent(LatentPlan { shape, nope, value, q_latent, .. }) => {
            let LatentShape { heads, latent, rope, .. } = *shape;
            // Queries whole, cut, with the key matrices taken up, and joined; what was attended; values. What goes
            // through a matrix for each head is there head by head as well.
            let of_head = 3 * (nope + rope + latent) + 2 * value;
            heads * of_head + 2 * q_latent.unwrap_or(0) + 3 * latent + 2 * rope
        }
        // q, k, v, the gate, what was attended and its norm.
        Mixer::Lightning(lightning) => 6 * lightning.heads() * lightning.head_dim,
    }
}

fn mlp_width(mlp: &Mlp, hidden: usize) -> usize {
    let network = |intermediate| 2 * hidden + 3 * intermediate;
    match mlp {
        Mlp::Dense { intermediate } => network(*intermediate),
        Mlp::Moe(moe) => {
            let shared = moe.shared.as_ref().map_or(0, |shared| network(shared.intermediate));
            moe.rule.per_token * network(moe.intermediate) + shared
        }
    }
}

fn rotary_dim(mixer: &Mixer) -> usize {
    match mixer {
        Mixer::Attention(attention) => attention.rope.rotary_dim,
        Mixer::Latent(latent) => latent.rope.rotary_dim,
        Mixer::Lightning(_) => 0,
    }
}

/// The process itself: its program, stacks, connections.
const PROCESS_BYTES: usize = 32 << 20;
/// A tokenizer, for each entry of the vocabulary.
const TOKENIZER_BYTES: usize = 512;
