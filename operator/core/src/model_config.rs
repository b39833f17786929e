//! What a model takes, from its config.json alone: an estimate for a model that nobody has downloaded yet.
//!
//! One file a family says which tensors it has. They are summed by the rules by which the runtime holds them
//! ([`tensors`]), so that for a family that it serves the figures are those of `coterie inspect`.
//!
//! A config is not to be trusted: every number has a limit, sums cannot overflow, nothing is allocated by them.

mod deepseek;
mod glm;
mod gpt_oss;
mod grouped;
mod keys;
mod latent;
mod minimax;
mod minimax_m2;
mod mixtral;
mod olmoe;
mod pangu;
mod qwen;
mod tensors;

pub use keys::NoSizes;

use coterie_api::launch::{Device, DraftModule, Inspection, WeightBytes};
use coterie_api::nearest::nearest;
use keys::Keys;
use serde_json::Value;
use tensors::Tensors;

/// A family of models whose sizes are known.
struct Family {
    /// As `architectures` in config.json names it.
    architecture: &'static str,
    /// As `model_type` names it; read where there are no architectures.
    model_type: &'static str,
    read: fn(&Keys) -> Result<Shape, NoSizes>,
}

const fn family(
    architecture: &'static str,
    model_type: &'static str,
    read: fn(&Keys) -> Result<Shape, NoSizes>,
) -> Family {
    Family { architecture, model_type, read }
}

/// What the runtime of this version serves all these families on. What they take can be told of any device.
pub const SERVED_ON: [Device; 1] = [Device::Cpu];

const FAMILIES: [Family; 13] = [
    family("MixtralForCausalLM", "mixtral", mixtral::read),
    family("MiniMaxText01ForCausalLM", "minimax_text_01", minimax::released),
    family("MiniMaxM1ForCausalLM", "minimax_m1", minimax::released),
    family("MiniMaxForCausalLM", "minimax", minimax::transformers),
    family("MiniMaxM2ForCausalLM", "minimax_m2", minimax_m2::read),
    family("DeepseekV3ForCausalLM", "deepseek_v3", deepseek::read_v3),
    family("DeepseekV2ForCausalLM", "deepseek_v2", deepseek::read_v2),
    family("PanguUltraMoEForCausalLM", "pangu_ultra_moe", pangu::read),
    family("Qwen3MoeForCausalLM", "qwen3_moe", qwen::read_3),
    family("Qwen2MoeForCausalLM", "qwen2_moe", qwen::read_2),
    family("OlmoeForCausalLM", "olmoe", olmoe::read),
    family("Glm4MoeForCausalLM", "glm4_moe", glm::read),
    family("GptOssForCausalLM", "gpt_oss", gpt_oss::read),
];

/// What a family makes of its config.
struct Shape {
    layers: u64,
    /// Those with experts.
    expert_layers: u64,
    /// Routed experts of one layer.
    experts: u64,
    experts_per_token: u64,
    /// Longest context, tokens.
    context_length: u64,
    /// Token ids below this exist.
    vocabulary: u64,
    /// Width of the residual stream.
    hidden: u64,
    tensors: Tensors,
    /// Values in the KV cache that each token leaves.
    kv_values_per_token: u64,
    /// Values in the KV cache of a request of any length: windows.
    window_values: u64,
    /// Values of what linear attention keeps of one request, always f32: running sums, and the keys and values of the
    /// last block.
    state_values: u64,
    /// Values of one snapshot of it: the sums alone.
    snapshot_values: u64,
    /// Values beside the residual stream that a token needs in one layer's attention.
    attention_width: u64,
    /// Width of one expert.
    expert_width: u64,
    /// Width of what every token passes beside its experts.
    shared_width: u64,
    /// Width of a layer without experts.
    dense_width: u64,
    /// Dimensions that are rotated.
    rotary: u64,
    /// The layer that only guesses ahead (multi-token prediction), if there is one.
    draft: Option<DraftLayer>,
}

/// The first of the layers behind the last, by which the runtime can guess ahead.
struct DraftLayer {
    tensors: Tensors,
    /// Values in the KV cache that each token leaves.
    kv_values_per_token: u64,
}

/// What a model takes.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSizes {
    /// Class name, e.g. `MixtralForCausalLM`.
    pub architecture: &'static str,
    /// Parameters, without layers that only guess ahead.
    pub parameters: u64,
    /// Those of routed experts.
    pub expert_parameters: u64,
    /// Those that one token uses.
    pub active_parameters: u64,
    /// Decoder layers.
    pub layers: u32,
    /// Those with experts.
    pub expert_layers: u32,
    /// Routed experts of one layer.
    pub experts: u32,
    /// Those that one token uses.
    pub experts_per_token: u32,
    /// Longest context, tokens.
    pub context_length: u32,
    /// Weights in memory, bytes.
    pub weight_bytes: WeightBytes,
    /// Those of routed experts.
    pub expert_bytes: WeightBytes,
    /// Values in the KV cache that each token leaves; how many bytes one has depends on the device.
    pub kv_values_per_token: u64,
    /// Values in the KV cache of a request of any length.
    pub window_values: u64,
    /// Values of what linear attention keeps of a request, f32.
    pub state_values: u64,
    /// Values of one snapshot of it, f32.
    pub snapshot_values: u64,
    /// Parameters of the layer that only guesses ahead, which is planned for where it is asked for.
    pub draft_parameters: u64,
    /// Its weights in memory, bytes, and the values in the KV cache that each token leaves in it.
    draft: Option<(WeightBytes, u64)>,
    /// How the checkpoint is quantized, as it says itself.
    pub checkpoint_quantization: Option<String>,
    /// Memory beside weights and KV cache, but for the two below, bytes.
    working_bytes: u64,
    /// A table of the rotary embedding's angles, bytes.
    angle_bytes: u64,
}

/// Reads the text of a config.json.
pub fn read(config: &str) -> Result<ModelSizes, NoSizes> {
    let Value::Object(written) = serde_json::from_str(config)? else { return Err(NoSizes::NoObject) };
    let keys = Keys(&written);
    let family = find(&keys)?;
    let shape = (family.read)(&keys)?;
    if shape.experts_per_token > shape.experts {
        return Err(NoSizes::ExpertsPerToken { per_token: shape.experts_per_token, experts: shape.experts });
    }
    let sums = shape.tensors.sums()?;
    let draft = shape.draft.as_ref();
    let draft = draft
        .map(|layer| Ok::<_, NoSizes>((layer.tensors.sums()?, layer.kv_values_per_token)))
        .transpose()?;
    let used = u128::from(sums.expert_values) * u128::from(shape.experts_per_token)
        / u128::from(shape.experts.max(1));
    Ok(ModelSizes {
        architecture: family.architecture,
        parameters: sums.values,
        expert_parameters: sums.expert_values,
        active_parameters: sums.values - sums.expert_values + used as u64,
        layers: shape.layers as u32,
        expert_layers: shape.expert_layers as u32,
        experts: shape.experts as u32,
        experts_per_token: shape.experts_per_token as u32,
        context_length: shape.context_length as u32,
        weight_bytes: sums.bytes,
        expert_bytes: sums.expert_bytes,
        kv_values_per_token: shape.kv_values_per_token,
        window_values: shape.window_values,
        state_values: shape.state_values,
        snapshot_values: shape.snapshot_values,
        draft_parameters: draft.as_ref().map_or(0, |(sums, _)| sums.values),
        draft: draft.map(|(sums, values)| (sums.bytes, values)),
        checkpoint_quantization: keys.quantization_method(),
        working_bytes: working_bytes(&shape),
        angle_bytes: shape.context_length.next_power_of_two() * shape.rotary * F32,
    })
}

fn find(keys: &Keys) -> Result<&'static Family, NoSizes> {
    let named = keys.texts("architectures")?;
    let by_name = FAMILIES.iter().find(|family| named.contains(&family.architecture));
    let by_type = || match (named.is_empty(), keys.text("model_type")) {
        (true, Some(name)) => FAMILIES.iter().find(|family| family.model_type == name),
        _ => None,
    };
    by_name.or_else(by_type).ok_or_else(|| {
        let named = named.first().copied().or(keys.text("model_type")).unwrap_or("");
        let known = FAMILIES.each_ref().map(|family| family.architecture);
        NoSizes::UnknownFamily {
            named: named.chars().take(100).collect(),
            known: known.join(", "),
            nearest: nearest(named, known).unwrap_or_default(),
        }
    })
}

/// Bytes of one value in the KV cache: the engine holds f32 on the CPU, and bf16 on a GPU.
pub fn kv_value_bytes(device: Device) -> u64 {
    match device {
        Device::Cpu => 4,
        Device::Gpu => 2,
    }
}

impl ModelSizes {
    /// As `coterie inspect` would tell it of a checkpoint, but for the digest, which only files have; on a device that
    /// the runtime does not serve it on, what it would take there.
    pub fn inspection(&self, device: Device) -> Inspection {
        let bytes = kv_value_bytes(device);
        let cache = self.kv_values_per_token * bytes;
        let state = self.window_values * bytes + self.state_values * F32;
        let spare = SPARE_TOKENS * cache + (MAX_RUNNING - 1) * state + SNAPSHOTS * self.snapshot_values * F32;
        let angles = if device == Device::Cpu { self.angle_bytes } else { 0 };
        Inspection {
            architecture: self.architecture.to_owned(),
            parameters: self.parameters,
            active_parameters: self.active_parameters,
            layers: self.layers,
            expert_layers: Some(self.expert_layers),
            experts: self.experts,
            experts_per_token: self.experts_per_token,
            context_length: self.context_length,
            weight_bytes: self.weight_bytes,
            expert_bytes: Some(self.expert_bytes),
            kv_bytes_per_token: cache,
            state_bytes: state,
            working_bytes: self.working_bytes + angles + spare,
            spare_bytes: spare,
            draft_module: self.draft.map(|(weight_bytes, values)| DraftModule {
                weight_bytes,
                kv_bytes_per_token: values * bytes,
                spare_bytes: SPARE_TOKENS * values * bytes,
            }),
            digest: String::new(),
            devices: SERVED_ON.to_vec(),
            most_gpus: 1,
        }
    }
}

/// Tokens that one step computes at most, rows whose logits are there at once, cache for requests beside the longest,
/// requests that run at once, snapshots of their states: the engine's own numbers. The tests of several crates compare
/// what comes of them with `coterie inspect`.
const STEP_TOKENS: u64 = 512;
const LOGIT_ROWS: u64 = 32;
const SPARE_TOKENS: u64 = 2048;
const MAX_RUNNING: u64 = 16;
const SNAPSHOTS: u64 = 16;
/// The process itself, and its tokenizer for each entry of the vocabulary.
const PROCESS_BYTES: u64 = 32 << 20;
const TOKENIZER_BYTES: u64 = 512;
/// Bytes of a value that is computed with.
const F32: u64 = 4;

/// As the engine counts it (runtime/engine/src/inspect.rs), without angles and what is spare.
fn working_bytes(shape: &Shape) -> u64 {
    let Shape { hidden, vocabulary, experts_per_token, .. } = *shape;
    let attention = 4 * hidden + shape.attention_width;
    let network = |width: u64| if width > 0 { 2 * hidden + 3 * width } else { 0 };
    let experts = experts_per_token * network(shape.expert_width) + network(shape.shared_width);
    let step = STEP_TOKENS * (attention + experts.max(network(shape.dense_width)));
    let logits = (LOGIT_ROWS + 3) * vocabulary;
    PROCESS_BYTES + vocabulary * TOKENIZER_BYTES + F32 * (step + logits)
}

#[cfg(test)]
mod tests;
