//! MiniMax-Text-01 and MiniMax-M1 (arXiv:2501.08313): seven layers of lightning attention to one of softmax attention
//! whose heads are rotated in part. What is special: the residual is the normalised input, weighted. In checkpoints as
//! they were released, and as transformers writes them.

use crate::model::config::ConfigRule;
use crate::model::config::keys::{Keys, known};
use crate::model::config::plan::{LayerPlan, LightningPlan, Mixer, Mlp, Names, Residual};
use coterie_kernels::gate::Scores;

pub const NAMES: Names = Names { moe: "block_sparse_moe", expert: ["w1", "w2", "w3"], ..Names::USUAL };

/// As released: decays are ALiBi's slopes.
pub fn released(keys: &Keys) -> Result<Vec<LayerPlan>, ConfigRule> {
    // Without it the residual would be the input as it is.
    known("postnorm", &Some(keys.postnorm.unwrap_or(false)), "true")?;
    layers(keys, alibi_slopes, |layer, layers| layer / (layers - 1.0).max(1.0))
}

/// As transformers computes it: the slopes are one geometric series whatever the number of heads.
pub fn transformers(keys: &Keys) -> Result<Vec<LayerPlan>, ConfigRule> {
    layers(keys, geometric_slopes, |layer, layers| layer / (layers - 1.0 + 1e-5))
}

fn layers(
    keys: &Keys,
    slopes: fn(usize) -> Vec<f64>,
    depth: fn(f64, f64) -> f64,
) -> Result<Vec<LayerPlan>, ConfigRule> {
    keys.refuse_others(None)?;
    known("attention_bias", &keys.attention_bias, "false")?;
    known("shared_intermediate_size", &keys.shared_intermediate_size, "0")?;
    let mut attention = keys.partly_rotated_attention(1.0)?;
    attention.shape.window = keys.sliding_window()?;
    let moe = keys.moe(keys.intermediate()?, Scores::Softmax, true)?;
    let [softmax, lightning, mlp] = keys.blends()?;
    let kinds = keys.softmax_layers()?;
    let count = kinds.len() as f64;
    let layer = |(l, is_softmax): (usize, bool)| {
        let (mixer, blend) = match is_softmax {
            true => (Mixer::Attention(attention.clone()), softmax),
            false => {
                // Later layers remember longer.
                let factor = 1.0 - depth(l as f64, count) + 1e-5;
                let slopes = slopes(attention.shape.heads).iter().map(|slope| slope * factor).collect();
                (Mixer::Lightning(LightningPlan { slopes, head_dim: attention.shape.head_dim }), lightning)
            }
        };
        LayerPlan { mixer, mlp: Mlp::Moe(moe.clone()), residual: Residual::Normalised { mixer: blend, mlp } }
    };
    Ok(kinds.into_iter().enumerate().map(layer).collect())
}

/// 2^(-8h / heads) for h from 1.
fn geometric_slopes(heads: usize) -> Vec<f64> {
    (1..=heads).map(|head| (-8.0 * head as f64 / heads as f64).exp2()).collect()
}

/// The same for powers of two. For other numbers those of the next lower power, and between them as many as are lacking
/// of the next higher (ALiBi, arXiv:2108.12409, and its published code).
fn alibi_slopes(heads: usize) -> Vec<f64> {
    let lower = 1 << heads.ilog2();
    let between = geometric_slopes(2 * lower).into_iter().step_by(2);
    geometric_slopes(lower).into_iter().chain(between).take(heads).collect()
}

#[cfg(test)]
mod tests;
