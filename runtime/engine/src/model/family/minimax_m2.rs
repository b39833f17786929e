//! MiniMax-M2: plain attention in every layer, of each head only the first values rotated, norms over the whole query and
//! key vectors; a sigmoid gate with a bias that helps to choose.

use crate::model::config::ConfigRule;
use crate::model::config::keys::{Keys, known};
use crate::model::config::plan::{AttentionPlan, LayerPlan, Mixer, Mlp, MoePlan, Names, QkNorm, Residual};
use coterie_kernels::gate::Scores;

pub const NAMES: Names = Names {
    moe: "block_sparse_moe",
    correction: "e_score_correction_bias",
    expert: ["w1", "w2", "w3"],
    ..Names::USUAL
};

pub fn layers(keys: &Keys) -> Result<Vec<LayerPlan>, ConfigRule> {
    keys.refuse_others(None)?;
    keys.refuse_other_attention()?;
    known("use_qk_norm", &keys.use_qk_norm, "true")?;
    known("qk_norm_type", &keys.qk_norm_type, "per_layer")?;
    known("scoring_func", &keys.scoring_func, "sigmoid")?;
    known("use_routing_bias", &keys.use_routing_bias, "true")?;
    known("shared_intermediate_size", &keys.shared_intermediate_size, "0")?;
    for kind in keys.attn_type_list.iter().flatten() {
        known("attn_type_list", &Some(kind), "1")?;
    }
    let attention = AttentionPlan { qk_norm: QkNorm::Whole, ..keys.partly_rotated_attention(1.0)? };
    let moe = MoePlan { correction: true, ..keys.moe(keys.intermediate()?, Scores::Sigmoid, true)? };
    let layer =
        LayerPlan { mixer: Mixer::Attention(attention), mlp: Mlp::Moe(moe), residual: Residual::Plain };
    Ok(vec![layer; keys.layers()?])
}
