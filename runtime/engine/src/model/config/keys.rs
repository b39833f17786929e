//! The keys of config.json as files spell them: older ones have `rope_theta`, newer ones `rope_parameters`; the number
//! of experts has two names. What a number means is a family's to say; that it is possible is checked here.

use crate::backend::AttentionShape;
use crate::model::config::plan::{AttentionPlan, RopePlan};
use crate::model::config::rule::ConfigRule;
use serde::Deserialize;

/// What is read of config.json. Numbers are u64 so that a negative or fractional one is the parser's error.
#[derive(Deserialize)]
pub struct Keys {
    #[serde(default)]
    pub(super) architectures: Vec<String>,
    vocab_size: Option<u64>,
    hidden_size: Option<u64>,
    intermediate_size: Option<u64>,
    num_hidden_layers: Option<u64>,
    num_attention_heads: Option<u64>,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    num_local_experts: Option<u64>,
    num_experts: Option<u64>,
    num_experts_per_tok: Option<u64>,
    max_position_embeddings: Option<u64>,
    sliding_window: Option<u64>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_parameters: Option<RopeParameters>,
    rope_scaling: Option<RopeParameters>,
    hidden_act: Option<String>,
    #[serde(default)]
    pub(super) tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    pub(super) eos_token_id: Option<StopTokens>,
    rotary_dim: Option<u64>,
    /// Of each layer: 1 is softmax attention, 0 lightning attention.
    attn_type_list: Option<Vec<u64>>,
    layer_types: Option<Vec<String>>,
    postnorm: Option<bool>,
    shared_intermediate_size: Option<u64>,
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
struct RopeParameters {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    /// The older name; some files have both.
    #[serde(rename = "type")]
    old_type: Option<String>,
}

impl RopeParameters {
    fn kind(&self) -> Option<&str> {
        self.rope_type.as_deref().or(self.old_type.as_deref())
    }
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

    /// How far back a token attends, if not everywhere.
    pub fn sliding_window(&self) -> Result<Option<usize>, ConfigRule> {
        self.sliding_window.map(|n| number("sliding_window", Some(n), u64::MAX)).transpose()
    }

    /// What a norm adds to the mean square.
    pub fn rms_norm_eps(&self) -> Result<f32, ConfigRule> {
        let eps = self.rms_norm_eps.unwrap_or(1e-5);
        match (0.0..1.0).contains(&eps) {
            true => Ok(eps as f32),
            false => {
                let expected = "from 0 to less than 1";
                Err(ConfigRule::Float { key: "rms_norm_eps", value: eps, expected })
            }
        }
    }

    /// Width of a feed-forward network.
    pub fn intermediate(&self) -> Result<usize, ConfigRule> {
        number("intermediate_size", self.intermediate_size, 1 << 20)
    }

    /// Experts of a layer, and those that a token uses.
    pub fn experts(&self) -> Result<(usize, usize), ConfigRule> {
        let experts = number("num_local_experts", self.num_local_experts.or(self.num_experts), 1 << 14)?;
        let per_token = number("num_experts_per_tok", self.num_experts_per_tok, 1 << 14)?;
        match per_token <= experts {
            true => Ok((experts, per_token)),
            false => Err(ConfigRule::ExpertsPerToken { per_token, experts }),
        }
    }

    /// Attention with grouped heads, rotated whole if `rotary_dim` does not say otherwise.
    pub fn attention(&self) -> Result<AttentionPlan, ConfigRule> {
        let hidden = self.hidden()?;
        let heads = number("num_attention_heads", self.num_attention_heads, 1 << 12)?;
        let kv_heads = match self.num_key_value_heads {
            Some(n) => number("num_key_value_heads", Some(n), 1 << 12)?,
            None => heads,
        };
        divides(("num_attention_heads", heads), ("num_key_value_heads", kv_heads))?;
        let head_dim = match self.head_dim {
            Some(n) => number("head_dim", Some(n), 1 << 12)?,
            None => divides(("hidden_size", hidden), ("num_attention_heads", heads))?,
        };
        let scale = 1.0 / (head_dim as f32).sqrt();
        let rotary_dim = match self.rotary_dim {
            Some(n) => number("rotary_dim", Some(n), head_dim as u64)?,
            None if head_dim.is_multiple_of(2) => head_dim,
            None => return Err(ConfigRule::OddHead { head_dim }),
        };
        if !rotary_dim.is_multiple_of(2) {
            return Err(ConfigRule::OddRotary { rotary_dim });
        }
        let rope = RopePlan { theta: self.rope_theta()?, rotary_dim };
        Ok(AttentionPlan { shape: AttentionShape { heads, kv_heads, head_dim, scale }, rope })
    }

    /// `rope_theta` of old, or within `rope_parameters`; a scaled rotary embedding is another computation.
    fn rope_theta(&self) -> Result<f64, ConfigRule> {
        let written = [&self.rope_parameters, &self.rope_scaling];
        for kind in written.into_iter().flatten().filter_map(RopeParameters::kind) {
            if kind != "default" {
                return Err(unsupported("rope_type", kind, "default"));
            }
        }
        let theta = self.rope_parameters.as_ref().and_then(|p| p.rope_theta).or(self.rope_theta);
        let theta = theta.unwrap_or(1e6);
        match theta.is_finite() && theta > 0.0 {
            true => Ok(theta),
            false => {
                Err(ConfigRule::Float { key: "rope_theta", value: theta, expected: "a positive number" })
            }
        }
    }

    /// Of each layer, whether its attention is softmax attention rather than linear.
    pub fn softmax_layers(&self) -> Result<Vec<bool>, ConfigRule> {
        let layers = self.layers()?;
        let (key, kinds) = match (&self.layer_types, &self.attn_type_list) {
            (Some(names), _) => {
                let kind = |name: &String| match name.as_str() {
                    "full_attention" => Ok(true),
                    "linear_attention" => Ok(false),
                    other => Err(unsupported("layer_types", other, "full_attention and linear_attention")),
                };
                ("layer_types", names.iter().map(kind).collect::<Result<Vec<_>, _>>()?)
            }
            (None, Some(numbers)) => {
                let kind = |number: &u64| match number {
                    0 => Ok(false),
                    1 => Ok(true),
                    other => Err(unsupported("attn_type_list", &other.to_string(), "0 and 1")),
                };
                ("attn_type_list", numbers.iter().map(kind).collect::<Result<Vec<_>, _>>()?)
            }
            (None, None) => return Err(ConfigRule::Missing { key: "attn_type_list" }),
        };
        match kinds.len() == layers {
            true => Ok(kinds),
            false => Err(ConfigRule::Entries { key, entries: kinds.len(), layers }),
        }
    }

    /// α and β of the residual: behind softmax attention, behind linear attention, behind the experts. 1 where nothing
    /// is said.
    pub fn residual_factors(&self) -> Result<[[f32; 2]; 3], ConfigRule> {
        let factor = |key, value: Option<f64>| {
            let value = value.unwrap_or(1.0);
            match value.abs() < 1e6 {
                true => Ok(value as f32),
                false => Err(ConfigRule::Float { key, value, expected: "within ±1,000,000" }),
            }
        };
        Ok([
            [
                factor("layernorm_full_attention_alpha", self.layernorm_full_attention_alpha)?,
                factor("layernorm_full_attention_beta", self.layernorm_full_attention_beta)?,
            ],
            [
                factor("layernorm_linear_attention_alpha", self.layernorm_linear_attention_alpha)?,
                factor("layernorm_linear_attention_beta", self.layernorm_linear_attention_beta)?,
            ],
            [
                factor("layernorm_mlp_alpha", self.layernorm_mlp_alpha)?,
                factor("layernorm_mlp_beta", self.layernorm_mlp_beta)?,
            ],
        ])
    }

    /// Refuses a residual that is not the normalised input.
    pub fn require_postnorm(&self) -> Result<(), ConfigRule> {
        match self.postnorm {
            Some(true) => Ok(()),
            Some(false) | None => Err(unsupported("postnorm", "false", "true")),
        }
    }

    /// Refuses an expert that all tokens use.
    pub fn refuse_shared_expert(&self) -> Result<(), ConfigRule> {
        match self.shared_intermediate_size {
            None | Some(0) => Ok(()),
            Some(width) => Err(unsupported("shared_intermediate_size", &width.to_string(), "0")),
        }
    }

    /// Refuses what no family of this build computes.
    pub fn refuse_unsupported(&self) -> Result<(), ConfigRule> {
        if self.attention_bias {
            return Err(unsupported("attention_bias", "true", "false"));
        }
        match self.hidden_act.as_deref() {
            None | Some("silu") => Ok(()),
            Some(other) => Err(unsupported("hidden_act", other, "silu")),
        }
    }
}

/// From 1 to `limit`.
fn number(key: &'static str, value: Option<u64>, limit: u64) -> Result<usize, ConfigRule> {
    match value {
        None => Err(ConfigRule::Missing { key }),
        Some(value) if (1..=limit).contains(&value) => Ok(value as usize),
        Some(value) => Err(ConfigRule::OutOfRange { key, value, limit }),
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

fn unsupported(key: &'static str, value: &str, known: &'static str) -> ConfigRule {
    ConfigRule::Unsupported { key, value: value.chars().take(100).collect(), known }
}
