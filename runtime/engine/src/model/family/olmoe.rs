//! OLMoE (`arXiv:2409.02060`): many small experts in every layer whose weights are not renormalised, and norms over the
//! whole query and key vectors.

use crate::model::config::ConfigRule;
use crate::model::config::keys::{Keys, known};
use crate::model::config::plan::{AttentionPlan, LayerPlan, Mixer, Mlp, Names, QkNorm, Residual};
use coterie_kernels::gate::Scores;

pub const NAMES: Names = Names::USUAL;

pub fn layers(keys: &Keys) -> Result<Vec<LayerPlan>, ConfigRule> {
    keys.refuse_others(None)?;
    keys.refuse_other_attention()?;
    known("clip_qkv", &keys.clip_qkv, "null")?;
    let bias = keys.attention_bias.unwrap_or(false);
    let attention =
        AttentionPlan { qkv_bias: bias, o_bias: bias, qk_norm: QkNorm::Whole, ..keys.attention()? };
    let renormalise = keys.norm_topk_prob.unwrap_or(false);
    let moe = keys.moe(keys.intermediate()?, Scores::Softmax, renormalise)?;
    let layer =
        LayerPlan { mixer: Mixer::Attention(attention), mlp: Mlp::Moe(moe), residual: Residual::Plain };
    Ok(vec![layer; keys.layers()?])
}
