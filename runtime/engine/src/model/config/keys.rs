//! The keys of config.json as files spell them: older ones have `rope_theta`, newer ones `rope_parameters`; the number
//! of experts has three names. What a number means is a family's to say; that it is possible is checked here.

mod attention;
mod experts;
mod hybrid;
mod latent;

use crate::model::config::rule::ConfigRule;
use serde::Deserialize;
use std::fmt::Display;

/// What is read of config.json. Numbers are u64 so that a negative or fractional one is the parser's error. A key that
/// changes what is computed must be here, so that a family which does not compute it can refuse it.
#[derive(Deserialize)]
pub struct Keys {
    #[serde(default)]
    pub(super) architectures: Vec<String>,
    vocab_size: Option<u64>,
    hidden_size: Option<u64>,
    intermediate_size: Option<u64>,
    num_hidden_layers: Option<u64>,
    max_position_embeddings: Option<u64>,
    rms_norm_eps: Option<f64>,
    pub(super) eos_token_id: Option<StopTokens>,
    #[serde(default)]
    pub(super) tie_word_embeddings: bool,
    hidden_act: Option<String>,
    quantization_config: Option<Quantized>,

    num_attention_heads: Option<u64>,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    pub(in crate::model) attention_bias: Option<bool>,
    pub(in crate::model) qkv_bias: Option<bool>,
    pub(in crate::model) use_qk_norm: Option<bool>,
    pub(in crate::model) qk_norm_type: Option<String>,
    pub(in crate::model) clip_qkv: Option<f64>,
    pub(in crate::model) layer_types: Option<Vec<String>>,
    pub(in crate::model) attn_type_list: Option<Vec<u64>>,
    sliding_window: Option<u64>,
    pub(in crate::model) use_sliding_window: Option<bool>,
    rope_theta: Option<f64>,
    rope_parameters: Option<RopeParameters>,
    rope_scaling: Option<RopeParameters>,
    partial_rotary_factor: Option<f64>,
    rotary_dim: Option<u64>,

    #[serde(alias = "attention_q_lora_dim")]
    q_lora_rank: Option<u64>,
    #[serde(alias = "attention_kv_lora_dim")]
    kv_lora_rank: Option<u64>,
    #[serde(alias = "attention_qk_dim")]
    qk_nope_head_dim: Option<u64>,
    #[serde(alias = "attention_qk_rope_dim")]
    qk_rope_head_dim: Option<u64>,
    #[serde(alias = "attention_v_dim")]
    v_head_dim: Option<u64>,
    rope_interleave: Option<bool>,
    pub(in crate::model) sandwich_norm: Option<bool>,

    num_local_experts: Option<u64>,
    num_experts: Option<u64>,
    #[serde(alias = "num_routed_experts")]
    n_routed_experts: Option<u64>,
    num_experts_per_tok: Option<u64>,
    experts_per_token: Option<u64>,
    moe_intermediate_size: Option<u64>,
    pub(in crate::model) shared_expert_intermediate_size: Option<u64>,
    pub(in crate::model) shared_intermediate_size: Option<u64>,
    #[serde(alias = "num_shared_experts")]
    pub(in crate::model) n_shared_experts: Option<u64>,
    #[serde(alias = "num_dense_layers")]
    first_k_dense_replace: Option<u64>,
    pub(in crate::model) moe_layer_freq: Option<u64>,
    pub(in crate::model) mlp_bias: Option<bool>,
    mlp_only_layers: Option<Vec<u64>>,
    decoder_sparse_step: Option<u64>,
    pub(in crate::model) n_group: Option<u64>,
    pub(in crate::model) topk_method: Option<String>,
    topk_group: Option<u64>,
    pub(in crate::model) routed_scaling_factor: Option<f64>,
    pub(in crate::model) norm_topk_prob: Option<bool>,
    pub(in crate::model) scoring_func: Option<String>,
    pub(in crate::model) use_routing_bias: Option<bool>,
    pub(in crate::model) router_enable_expert_bias: Option<bool>,
    pub(in crate::model) swiglu_alpha: Option<f64>,
    pub(in crate::model) swiglu_limit: Option<f64>,

    pub(in crate::model) postnorm: Option<bool>,
    #[serde(alias = "full_attn_alpha_factor")]
    layernorm_full_attention_alpha: Option<f64>,
    #[serde(alias = "full_attn_beta_factor")]
    layernorm_full_attention_beta: Option<f64>,
    #[serde(alias = "linear_attn_alpha_factor")]
    layernorm_linear_attention_alpha: Option<f64>,
    #[serde(alias = "linear_attn_beta_factor")]
    layernorm_linear_attention_beta: Option<f64>,
    #[serde(alias = "mlp_alpha_factor")]
    layernorm_mlp_alpha: Option<f64>,
    #[serde(alias = "mlp_beta_factor")]
    layernorm_mlp_beta: Option<f64>,
}

#[derive(Deserialize)]
struct Quantized {
    quant_method: Option<String>,
}

#[derive(Deserialize)]
struct RopeParameters {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    /// The older name; some files have both.
    #[serde(rename = "type")]
    old_type: Option<String>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    original_max_position_embeddings: Option<u64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    truncate: Option<bool>,
    attention_factor: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "eos_token_id is neither a token id nor a list of them")]
pub(super) enum StopTokens {
    One(u32),
    Many(Vec<u32>),
}

impl StopTokens {
    pub(super) fn into_vec(self) -> Vec<u32> {
        match self {
            StopTokens::One(token) => vec![token],
            StopTokens::Many(tokens) => tokens,
        }
    }
}

impl Keys {
    /// Entries of the vocabulary.
    pub fn vocabulary(&self) -> Result<usize, ConfigRule> {
        number("vocab_size", self.vocab_size, 1 << 24)
    }

    /// Width of the residual stream.
    pub fn hidden(&self) -> Result<usize, ConfigRule> {
        number("hidden_size", self.hidden_size, 1 << 18)
    }

    /// Decoder layers.
    pub fn layers(&self) -> Result<usize, ConfigRule> {
        number("num_hidden_layers", self.num_hidden_layers, 1 << 12)
    }

    /// Longest context, tokens.
    pub fn context_length(&self) -> Result<usize, ConfigRule> {
        number("max_position_embeddings", self.max_position_embeddings, 1 << 24)
    }

    /// What a norm adds to the mean square.
    pub fn rms_norm_eps(&self) -> Result<f32, ConfigRule> {
        float("rms_norm_eps", self.rms_norm_eps, 1e-5, 0.0..1.0, "from 0 to less than 1")
    }

    /// Width of a feed-forward network.
    pub fn intermediate(&self) -> Result<usize, ConfigRule> {
        width("intermediate_size", self.intermediate_size)
    }

    /// Refuses another activation than SiLU, and weights that are quantized unless it is by `method`; without one, in
    /// fp8, which any family may be.
    pub fn refuse_others(&self, method: Option<&'static str>) -> Result<(), ConfigRule> {
        known("hidden_act", &self.hidden_act, "silu")?;
        let Some(quantized) = &self.quantization_config else { return Ok(()) };
        let written = Some(quantized.quant_method.as_deref().unwrap_or(""));
        known("quantization_config.quant_method", &written, method.unwrap_or("fp8"))
    }

    /// Refuses attention of another kind, and a window, in any layer.
    pub fn refuse_other_attention(&self) -> Result<(), ConfigRule> {
        for kind in self.layer_types.iter().flatten() {
            known("layer_types", &Some(kind), "full_attention")?;
        }
        match self.use_sliding_window {
            Some(used) => known("use_sliding_window", &Some(used), "false"),
            None => known("sliding_window", &self.sliding_window.filter(|window| *window > 0), "null"),
        }
    }
}

/// From 1 to `limit`.
pub fn number(key: &'static str, value: Option<u64>, limit: u64) -> Result<usize, ConfigRule> {
    match value {
        None => Err(ConfigRule::Missing { key }),
        Some(value) if (1..=limit).contains(&value) => Ok(value as usize),
        Some(value) => Err(ConfigRule::OutOfRange { key, value, limit }),
    }
}

/// Width of a feed-forward network.
pub fn width(key: &'static str, value: Option<u64>) -> Result<usize, ConfigRule> {
    number(key, value, 1 << 20)
}

/// Within `range`, `default` where nothing is written.
pub fn float(
    key: &'static str,
    value: Option<f64>,
    default: f64,
    range: std::ops::Range<f64>,
    expected: &'static str,
) -> Result<f32, ConfigRule> {
    let value = value.unwrap_or(default);
    match range.contains(&value) {
        true => Ok(value as f32),
        false => Err(ConfigRule::Float { key, value, expected }),
    }
}

/// Refuses everything but nothing and `known`.
pub fn known<T: Display>(
    key: &'static str,
    value: &Option<T>,
    known: &'static str,
) -> Result<(), ConfigRule> {
    match value.as_ref().map(T::to_string).filter(|value| value != known) {
        None => Ok(()),
        Some(value) => {
            let value = value.escape_debug().take(100).collect();
            Err(ConfigRule::Unsupported { key, value, known })
        }
    }
}

fn divides(
    (divided_key, divided): (&'static str, usize),
    (by_key, by): (&'static str, usize),
) -> Result<usize, ConfigRule> {
    match divided % by {
        0 => Ok(divided / by),
        _ => Err(ConfigRule::NotDivisible { divided_key, divided, by_key, by }),
    }
}
