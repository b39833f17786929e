//! Qwen-MoE, second and third generation (Qwen1.5-MoE and Qwen2-57B, Qwen3-30B and 235B): many small experts, with dense
//! layers between them where the config says so. The second has biases on queries, keys and values, and an expert that
//! every token uses as far as a gate of its own says; the third norms each head of queries and keys.

use crate::model::config::ConfigRule;
use crate::model::config::keys::{Keys, width};
use crate::model::config::plan::{AttentionPlan, LayerPlan, Mixer, MoePlan, Names, QkNorm, SharedPlan};
use coterie_kernels::gate::Scores;

pub const NAMES: Names = Names { shared: "shared_expert", ..Names::USUAL };

pub fn layers_of_2(keys: &Keys) -> Result<Vec<LayerPlan>, ConfigRule> {
    let attention = AttentionPlan { qkv_bias: keys.qkv_bias.unwrap_or(true), ..keys.attention()? };
    let intermediate = width("shared_expert_intermediate_size", keys.shared_expert_intermediate_size)?;
    layers(keys, attention, Some(SharedPlan { intermediate, gated: true }))
}

pub fn layers_of_3(keys: &Keys) -> Result<Vec<LayerPlan>, ConfigRule> {
    let bias = keys.attention_bias.unwrap_or(false);
    let attention =
        AttentionPlan { qkv_bias: bias, o_bias: bias, qk_norm: QkNorm::Heads, ..keys.attention()? };
    layers(keys, attention, None)
}

fn layers(
    keys: &Keys,
    attention: AttentionPlan,
    shared: Option<SharedPlan>,
) -> Result<Vec<LayerPlan>, ConfigRule> {
    keys.refuse_others(None)?;
    // Versions of the reference disagree about which layers would have a window.
    keys.refuse_other_attention()?;
    let renormalise = keys.norm_topk_prob.unwrap_or(false);
    let moe = MoePlan { shared, ..keys.moe(keys.expert_width()?, Scores::Softmax, renormalise)? };
    keys.layers_by_sparse_step(Mixer::Attention(attention), moe)
}
