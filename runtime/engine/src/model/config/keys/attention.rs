//! The keys of attention and of rotary embeddings.

use super::{Keys, RopeParameters, divides, known, number};
use crate::backend::AttentionShape;
use crate::model::config::plan::{AttentionPlan, QkNorm};
use crate::model::config::rope::{Pairs, RopePlan, Yarn};
use crate::model::config::rule::ConfigRule;

impl Keys {
    /// Attention with grouped heads, rotated whole, without biases, norms, sinks and window.
    pub fn attention(&self) -> Result<AttentionPlan, ConfigRule> {
        known("partial_rotary_factor", &self.written_partial_rotary_factor(), "1")?;
        self.partly_rotated_attention(1.0)
    }

    /// [`attention`](Keys::attention), of each head only a part rotated: `rotary_dim` values, or the share
    /// `partial_rotary_factor` of them, or that of `default`.
    pub fn partly_rotated_attention(&self, default: f64) -> Result<AttentionPlan, ConfigRule> {
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
        let rotary_dim = match self.rotary_dim {
            Some(n) => number("rotary_dim", Some(n), head_dim as u64)?,
            None => self.rotary_part(head_dim, default)?,
        };
        if !rotary_dim.is_multiple_of(2) {
            return Err(ConfigRule::OddRotary { rotary_dim });
        }
        let scale = 1.0 / (head_dim as f32).sqrt();
        Ok(AttentionPlan {
            shape: AttentionShape { heads, kv_heads, head_dim, scale, window: None },
            rope: self.rope(rotary_dim, Pairs::Halves)?,
            qkv_bias: false,
            o_bias: false,
            qk_norm: QkNorm::None,
            sinks: false,
        })
    }

    /// How many tokens a token sees, itself counted, if not all before it.
    pub fn sliding_window(&self) -> Result<Option<usize>, ConfigRule> {
        self.sliding_window.map(|n| number("sliding_window", Some(n), u64::MAX)).transpose()
    }

    pub(super) fn rope_parameters(&self) -> Option<&RopeParameters> {
        self.rope_scaling.as_ref().or(self.rope_parameters.as_ref())
    }

    fn written_partial_rotary_factor(&self) -> Option<f64> {
        self.rope_parameters().and_then(|rope| rope.partial_rotary_factor).or(self.partial_rotary_factor)
    }

    fn rotary_part(&self, head_dim: usize, default: f64) -> Result<usize, ConfigRule> {
        let value = self.written_partial_rotary_factor().unwrap_or(default);
        let rotary_dim = (head_dim as f64 * value) as usize;
        match (2..=head_dim).contains(&rotary_dim) {
            true => Ok(rotary_dim),
            false => {
                let expected = "a share that leaves at least a pair";
                Err(ConfigRule::Float { key: "partial_rotary_factor", value, expected })
            }
        }
    }

    /// The embedding that turns `rotary_dim` values of each head.
    pub fn rope(&self, rotary_dim: usize, pairs: Pairs) -> Result<RopePlan, ConfigRule> {
        let written = self.rope_parameters();
        let within = [&self.rope_scaling, &self.rope_parameters].into_iter().flatten();
        let theta = within.filter_map(|rope| rope.rope_theta).next().or(self.rope_theta);
        let theta = theta.ok_or(ConfigRule::Missing { key: "rope_theta" })?;
        let theta = positive("rope_theta", theta)?;
        let yarn = match written.and_then(RopeParameters::kind) {
            Some("yarn") => written.map(|rope| self.yarn(rope)).transpose()?,
            other => {
                known("rope_type", &other, "default")?;
                None
            }
        };
        Ok(RopePlan { theta, rotary_dim, pairs, yarn })
    }

    fn yarn(&self, written: &RopeParameters) -> Result<Yarn, ConfigRule> {
        let original = written.original_max_position_embeddings.or(self.max_position_embeddings);
        let original = number("original_max_position_embeddings", original, 1 << 24)?;
        let factor = match written.factor {
            Some(factor) => factor,
            None => self.context_length()? as f64 / original as f64,
        };
        let factor = positive("factor", factor)?;
        let scale = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
        let nonzero = |value: Option<f64>| value.filter(|value| *value != 0.0);
        let amplitude = match (nonzero(written.mscale), nonzero(written.mscale_all_dim)) {
            (Some(some), Some(all)) => scale(some) / scale(all),
            _ => scale(1.0),
        };
        let amplitude = written.attention_factor.unwrap_or(amplitude);
        Ok(Yarn {
            factor,
            original_context: original,
            beta_fast: positive("beta_fast", nonzero(written.beta_fast).unwrap_or(32.0))?,
            beta_slow: positive("beta_slow", nonzero(written.beta_slow).unwrap_or(1.0))?,
            truncate: written.truncate.unwrap_or(true),
            amplitude: positive("attention_factor", amplitude)? as f32,
        })
    }
}

impl RopeParameters {
    fn kind(&self) -> Option<&str> {
        self.rope_type.as_deref().or(self.old_type.as_deref())
    }
}

fn positive(key: &'static str, value: f64) -> Result<f64, ConfigRule> {
    match value.is_finite() && value > 0.0 {
        true => Ok(value),
        false => Err(ConfigRule::Float { key, value, expected: "a positive number" }),
    }
}
