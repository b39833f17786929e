//! Mixtral 8x7B, 8x22B and their kin: grouped-query attention, and a softmax gate that sends each token to its top
//! experts with renormalised weights.

use crate::model::config::ConfigRule;
use crate::model::config::keys::{Keys, known};
use crate::model::config::plan::{LayerPlan, Mixer, Mlp, Names, Residual};
use coterie_kernels::gate::Scores;

pub const NAMES: Names = Names { moe: "block_sparse_moe", expert: ["w1", "w2", "w3"], ..Names::USUAL };

pub fn layers(keys: &Keys) -> Result<Vec<LayerPlan>, ConfigRule> {
    keys.refuse_others(None)?;
    known("attention_bias", &keys.attention_bias, "false")?;
    let mut attention = keys.attention()?;
    attention.shape.window = keys.sliding_window()?;
    let moe = keys.moe(keys.intermediate()?, Scores::Softmax, true)?;
    let mixer = Mixer::Attention(attention);
    let layer = LayerPlan { mixer, mlp: Mlp::Moe(moe), residual: Residual::Plain };
    Ok(vec![layer; keys.layers()?])
}
