//! GLM-4-MoE (GLM-4.5, 4.6): DeepSeek-V3's gate and shared expert over grouped-query attention with half of each head
//! rotated. A correction bias helps to choose experts but never weighs them.

use crate::model::config::ConfigRule;
use crate::model::config::keys::{Keys, float, number};
use crate::model::config::plan::{AttentionPlan, LayerPlan, Mixer, MoePlan, Names, QkNorm, SharedPlan};
use coterie_kernels::gate::{Scores, Worth};

pub const NAMES: Names = Names::USUAL;

pub fn layers(keys: &Keys) -> Result<Vec<LayerPlan>, ConfigRule> {
    keys.refuse_others(None)?;
    keys.refuse_other_attention()?;
    let qk_norm = if keys.use_qk_norm.unwrap_or(false) { QkNorm::Heads } else { QkNorm::None };
    let attention = AttentionPlan {
        qkv_bias: keys.attention_bias.unwrap_or(false),
        qk_norm,
        ..keys.partly_rotated_attention(0.5)?
    };
    let width = keys.expert_width()?;
    let shared = number("n_shared_experts", Some(keys.n_shared_experts.unwrap_or(1)), 1 << 10)?;
    let mut moe = MoePlan {
        correction: true,
        shared: Some(SharedPlan { intermediate: shared * width, gated: false }),
        ..keys.moe(width, Scores::Sigmoid, keys.norm_topk_prob.unwrap_or(true))?
    };
    moe.rule.groups = keys.groups(moe.experts, moe.rule.per_token, Worth::TwoBest)?;
    let finite = f64::MIN_POSITIVE..f64::from(f32::MAX);
    moe.rule.factor =
        float("routed_scaling_factor", keys.routed_scaling_factor, 1.0, finite, "a positive number")?;
    keys.layers_from_first_sparse(Mixer::Attention(attention), moe)
}
