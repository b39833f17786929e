//! What a layer computes, as numbers and choices: the description that engine and slow loop alike interpret.

use crate::backend::{AttentionShape, LatentShape};
use crate::model::config::rope::RopePlan;
use coterie_kernels::gate::Rule;

/// One decoder layer: norm, mixer, residual, norm, feed-forward network, residual.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerPlan {
    /// How tokens see each other.
    pub mixer: Mixer,
    /// What each token does by itself.
    pub mlp: Mlp,
    /// How both come back to the residual stream.
    pub residual: Residual,
}

/// How the tokens of a sequence see each other.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixer {
    /// Keys and values of every token, shared by groups of query heads.
    Attention(AttentionPlan),
    /// One compressed latent of every token, shared by all heads.
    Latent(LatentPlan),
    /// A decaying sum over all tokens.
    Lightning(LightningPlan),
}

/// Attention with grouped query heads.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionPlan {
    /// Heads and their width.
    pub shape: AttentionShape,
    /// How queries and keys are turned by position.
    pub rope: RopePlan,
    /// Is something added to queries, keys and values?
    pub qkv_bias: bool,
    /// Is something added to the answer?
    pub o_bias: bool,
    /// How queries and keys are normed before they are turned.
    pub qk_norm: QkNorm,
    /// Does each head have a learned score that joins its softmax?
    pub sinks: bool,
}

/// Multi-head latent attention.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentPlan {
    /// Heads, and what is remembered of a token.
    pub shape: LatentShape,
    /// Values of a head's query and key that are not rotated; the rotated ones come behind them.
    pub nope: usize,
    /// Values of a head's value.
    pub value: usize,
    /// Width of the latent that queries are made from, if they are.
    pub q_latent: Option<usize>,
    /// How the rotated values are turned.
    pub rope: RopePlan,
    /// Added to the mean square in the norms of latents.
    pub eps: f32,
}

/// How queries and keys are normed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Not at all.
    None,
    /// Each head by itself, all with the same gains.
    Heads,
    /// All heads of a token as one vector.
    Whole,
}

/// Lightning attention.
#[derive(Clone, Debug, PartialEq)]
pub struct LightningPlan {
    /// Of each head: e^-slope is what a token leaves of the state before.
    pub slopes: Vec<f64>,
    /// Width of a head.
    pub head_dim: usize,
}

impl LightningPlan {
    /// Heads; each has its own queries, keys and values.
    pub fn heads(&self) -> usize {
        self.slopes.len()
    }
}

/// How a part of a layer, f, comes back to the residual stream x.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Residual {
    /// `x + f(norm(x))`
    Plain,
    /// `x + norm(f(norm(x)))`
    Sandwich,
    /// `α · norm(x) + β · f(norm(x))`
    Normalised {
        /// Of the mixer.
        mixer: Blend,
        /// Of what each token does by itself.
        mlp: Blend,
    },
}

impl Residual {
    /// How the mixer comes back, if blended.
    pub fn mixer(&self) -> Option<Blend> {
        match self {
            Residual::Plain | Residual::Sandwich => None,
            Residual::Normalised { mixer, .. } => Some(*mixer),
        }
    }

    /// How what each token does by itself comes back, if blended.
    pub fn mlp(&self) -> Option<Blend> {
        match self {
            Residual::Plain | Residual::Sandwich => None,
            Residual::Normalised { mlp, .. } => Some(*mlp),
        }
    }
}

/// The weights of a part's input and of its answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blend {
    /// Of its normalised input.
    pub alpha: f32,
    /// Of its answer.
    pub beta: f32,
}

/// What each token does by itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Mlp {
    /// One feed-forward network for all tokens.
    Dense {
        /// Its width.
        intermediate: usize,
    },
    /// Experts, a few of which each token uses.
    Moe(MoePlan),
}

/// A layer's experts and their gate.
#[derive(Clone, Debug, PartialEq)]
pub struct MoePlan {
    /// Experts.
    pub experts: usize,
    /// Width of one expert.
    pub intermediate: usize,
    /// What an expert does between its matrices.
    pub activation: Activation,
    /// Do experts add something behind each matrix, and the gate to its logits?
    pub biases: bool,
    /// From the gate's logits to experts and weights.
    pub rule: Rule,
    /// Does a learned bias help to choose experts, without changing their weights?
    pub correction: bool,
    /// An expert that every token uses beside its own.
    pub shared: Option<SharedPlan>,
}

/// An expert that every token uses.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedPlan {
    /// Its width.
    pub intermediate: usize,
    /// Does a gate of its own say how much it counts?
    pub gated: bool,
}

/// What a feed-forward network makes of its two halves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// silu(gate) ⊙ up
    Silu,
    /// (up + 1) ⊙ gate ⊙ sigmoid(alpha · gate), of gate at most `limit` and up within ± `limit`.
    ClampedSwiglu {
        /// How steep.
        alpha: f32,
        /// Where it is clamped.
        limit: f32,
    },
}

/// What a family calls its tensors within `model.layers.N`, as far as families differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// Gate and experts are below this; if all experts are one tensor, always below `mlp`.
    pub moe: &'static str,
    /// The gate.
    pub gate: &'static str,
    /// The bias that helps to choose.
    pub correction: &'static str,
    /// An expert's three matrices, in the order of [`Expert`](crate::moe::expert::Expert).
    pub expert: [&'static str; 3],
    /// How an expert lies in a tensor for all of them.
    pub fused: Fused,
    /// The expert that every token uses.
    pub shared: &'static str,
}

/// How an expert's first and third matrices lie in `gate_up_proj`, if that is one tensor for all experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fused {
    /// One above the other: `[experts, 2 · intermediate, hidden]`.
    Halves,
    /// As every other column: `[experts, hidden, 2 · intermediate]`; packed, as every other row.
    Alternating,
}

impl Names {
    /// As most call them.
    pub const USUAL: Names = Names {
        moe: "mlp",
        gate: "gate",
        correction: "gate.e_score_correction_bias",
        expert: ["gate_proj", "down_proj", "up_proj"],
        fused: Fused::Halves,
        shared: "shared_experts",
    };
}
