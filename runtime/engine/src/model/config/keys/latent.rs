//! The keys of latent attention.

use super::{Keys, number, width};
use crate::backend::LatentShape;
use crate::model::config::plan::LatentPlan;
use crate::model::config::rope::{Pairs, RopePlan};
use crate::model::config::rule::ConfigRule;

impl Keys {
    /// Latent attention whose latents are normed with `eps`.
    pub fn latent_attention(&self, eps: f32) -> Result<LatentPlan, ConfigRule> {
        let heads = number("num_attention_heads", self.num_attention_heads, 1 << 12)?;
        let latent = width("kv_lora_rank", self.kv_lora_rank)?;
        let nope = number("qk_nope_head_dim", self.qk_nope_head_dim, 1 << 12)?;
        let rotary_dim = number("qk_rope_head_dim", self.qk_rope_head_dim, 1 << 12)?;
        let value = number("v_head_dim", self.v_head_dim, 1 << 12)?;
        if !rotary_dim.is_multiple_of(2) {
            return Err(ConfigRule::OddRotary { rotary_dim });
        }
        let pairs = if self.rope_interleave.unwrap_or(true) { Pairs::Neighbours } else { Pairs::Halves };
        let rope = self.rope(rotary_dim, pairs)?;
        let scale = self.softmax_factor(&rope) / ((nope + rotary_dim) as f64).sqrt();
        Ok(LatentPlan {
            shape: LatentShape { heads, latent, rope: rotary_dim, scale: scale as f32 },
            nope,
            value,
            q_latent: self.q_lora_rank.map(|rank| width("q_lora_rank", Some(rank))).transpose()?,
            rope,
            eps,
        })
    }

    /// What YaRN multiplies scores with if `mscale_all_dim` says so: its temperature for whole queries and keys, of which
    /// only a part is rotated.
    fn softmax_factor(&self, rope: &RopePlan) -> f64 {
        let by = self.rope_parameters().and_then(|written| written.mscale_all_dim).unwrap_or(0.0);
        match &rope.yarn {
            Some(yarn) if yarn.factor > 1.0 && by != 0.0 => (0.1 * by * yarn.factor.ln() + 1.0).powi(2),
            _ => 1.0,
        }
    }
}
