//! DeepSeek-V2 ([arXiv:2405.04434](https://arxiv.org/abs/2405.04434)), V3 and R1
//! ([arXiv:2412.19437](https://arxiv.org/abs/2412.19437)): latent attention, a few dense layers, then experts in groups
//! beside some that every token uses. V2's gate takes the softmax and ranks groups by their best expert; V3's takes the
//! sigmoid, ranks groups by their two best, and has a bias that helps to choose.
//!
//! Behind the last layer V3's checkpoints have a module that guesses ahead (multi-token prediction), as a layer of the
//! next number: nothing of it is read.

use crate::model::config::ConfigRule;
use crate::model::config::keys::{Keys, known};
use crate::model::config::plan::{LayerPlan, Mixer, MoePlan, Names};
use coterie_kernels::gate::{Scores, Worth};

pub const NAMES: Names = Names::USUAL;

/// Of the norms of latents, whatever the config says of all others.
const LATENT_EPS: f32 = 1e-6;

pub fn layers_of_2(keys: &Keys) -> Result<Vec<LayerPlan>, ConfigRule> {
    known("scoring_func", &keys.scoring_func, "softmax")?;
    // Implementations disagree about what becomes of the factor then.
    known("norm_topk_prob", &keys.norm_topk_prob, "false")?;
    let mut moe = keys.moe(keys.expert_width()?, Scores::Softmax, false)?;
    if keys.topk_method.as_deref() == Some("group_limited_greedy") {
        moe.rule.groups = keys.groups(moe.experts, moe.rule.per_token, Worth::Best)?;
    } else {
        known("topk_method", &keys.topk_method, "greedy")?;
    }
    moe.rule.factor = keys.routed_scaling_factor(Some(1.0))?;
    layers(keys, moe)
}

pub fn layers_of_3(keys: &Keys) -> Result<Vec<LayerPlan>, ConfigRule> {
    known("scoring_func", &keys.scoring_func, "sigmoid")?;
    known("topk_method", &keys.topk_method, "noaux_tc")?;
    let renormalise = keys.norm_topk_prob.unwrap_or(true);
    let mut moe =
        MoePlan { correction: true, ..keys.moe(keys.expert_width()?, Scores::Sigmoid, renormalise)? };
    moe.rule.groups = keys.groups(moe.experts, moe.rule.per_token, Worth::TwoBest)?;
    moe.rule.factor = keys.routed_scaling_factor(None)?;
    layers(keys, moe)
}

fn layers(keys: &Keys, moe: MoePlan) -> Result<Vec<LayerPlan>, ConfigRule> {
    keys.refuse_others(None)?;
    known("attention_bias", &keys.attention_bias, "false")?;
    known("mlp_bias", &keys.mlp_bias, "false")?;
    known("moe_layer_freq", &keys.moe_layer_freq, "1")?;
    let moe = MoePlan { shared: keys.shared_experts(moe.intermediate)?, ..moe };
    keys.layers_from_first_sparse(Mixer::Latent(keys.latent_attention(LATENT_EPS)?), moe)
}
