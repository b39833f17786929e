//! Mixtral 8x7B, 8x22B and their kin: grouped-query attention, and a softmax gate that sends each token to its top
//! experts with renormalised weights.

use crate::model::config::ConfigRule;
use crate::model::config::keys::Keys;
use crate::model::config::plan::{LayerPlan, Mixer, Mlp, MoePlan, Names, Residual};

pub const NAMES: Names = Names { moe: "block_sparse_moe", expert: ["w1", "w2", "w3"] };

pub fn layers(keys: &Keys) -> Result<Vec<LayerPlan>, ConfigRule> {
    keys.refuse_unsupported()?;
    let (experts, per_token) = keys.experts()?;
    let moe = MoePlan { experts, per_token, intermediate: keys.intermediate()?, renormalise: true };
    let mixer = Mixer::Attention(keys.attention()?);
    let layer = LayerPlan { mixer, mlp: Mlp::Moe(moe), residual: Residual::Plain };
    Ok(vec![layer; keys.layers()?])
}
