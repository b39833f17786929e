//! Pangu Ultra MoE ([arXiv:2505.04519](https://arxiv.org/abs/2505.04519)): DeepSeek-V3's attention and experts, all of
//! which a token may use, and a norm before and after each half of a layer.

use crate::model::config::ConfigRule;
use crate::model::config::keys::{Keys, known};
use crate::model::config::plan::{LayerPlan, Mixer, MoePlan, Names, Residual};
use coterie_kernels::gate::Scores;

pub const NAMES: Names = Names::USUAL;

pub fn layers(keys: &Keys) -> Result<Vec<LayerPlan>, ConfigRule> {
    keys.refuse_others(None)?;
    known("attention_bias", &keys.attention_bias, "false")?;
    known("sandwich_norm", &keys.sandwich_norm, "true")?;
    known("scoring_func", &keys.scoring_func, "sigmoid")?;
    known("n_group", &keys.n_group, "1")?;
    let width = keys.expert_width()?;
    let mut moe = MoePlan {
        correction: keys.router_enable_expert_bias.unwrap_or(false),
        shared: keys.shared_experts(width)?,
        ..keys.moe(width, Scores::Sigmoid, keys.norm_topk_prob.unwrap_or(true))?
    };
    moe.rule.factor = keys.routed_scaling_factor(None)?;
    let mixer = Mixer::Latent(keys.latent_attention(keys.rms_norm_eps()?)?);
    let mut layers = keys.layers_from_first_sparse(mixer, moe)?;
    layers.iter_mut().for_each(|layer| layer.residual = Residual::Sandwich);
    Ok(layers)
}
