//! GPT-OSS: biases everywhere, a learned sink for each head, every other layer attends to a window only; a clamped SwiGLU
//! in the experts, whose weights are the softmax over the chosen ones' logits.

use crate::model::config::ConfigRule;
use crate::model::config::keys::{Keys, float, known};
use crate::model::config::plan::{
    Activation, AttentionPlan, Fused, LayerPlan, Mixer, Mlp, MoePlan, Names, Residual,
};
use coterie_kernels::gate::Scores;

pub const NAMES: Names = Names { gate: "router", fused: Fused::Alternating, ..Names::USUAL };

pub fn layers(keys: &Keys) -> Result<Vec<LayerPlan>, ConfigRule> {
    keys.refuse_others(Some("mxfp4"))?;
    let bias = keys.attention_bias.unwrap_or(true);
    let everywhere = AttentionPlan { qkv_bias: bias, o_bias: bias, sinks: true, ..keys.attention()? };
    let mut within = everywhere.clone();
    within.shape.window = keys.sliding_window()?;

    let any = f64::MIN_POSITIVE..f64::from(f32::MAX);
    let moe = MoePlan {
        activation: Activation::ClampedSwiglu {
            alpha: float("swiglu_alpha", keys.swiglu_alpha, 1.702, any.clone(), "a positive number")?,
            limit: float("swiglu_limit", keys.swiglu_limit, 7.0, any, "a positive number")?,
        },
        biases: true,
        ..keys.moe(keys.intermediate()?, Scores::SoftmaxOfChosen, false)?
    };
    let layer = |windowed: bool| {
        let attention = if windowed { within.clone() } else { everywhere.clone() };
        LayerPlan {
            mixer: Mixer::Attention(attention),
            mlp: Mlp::Moe(moe.clone()),
            residual: Residual::Plain,
        }
    };
    let layers = keys.layers()?;
    let Some(kinds) = &keys.layer_types else {
        return Ok((0..layers).map(|l| layer(l % 2 == 0)).collect());
    };
    if kinds.len() != layers {
        return Err(ConfigRule::ListLength { key: "layer_types", found: kinds.len(), layers });
    }
    let of_kind = |kind: &String| match kind.as_str() {
        "sliding_attention" => Ok(layer(true)),
        other => known("layer_types", &Some(other), "full_attention").map(|()| layer(false)),
    };
    kinds.iter().map(of_kind).collect()
}
