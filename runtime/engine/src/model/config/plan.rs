//! What a layer computes, as numbers and choices: the description that engine and slow loop alike interpret.

use crate::backend::AttentionShape;

/// One decoder layer: norm, mixer, residual, norm, feed-forward network, residual.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerPlan {
    /// How tokens see each other.
    pub mixer: Mixer,
    /// What each token does by itself.
    pub mlp: Mlp,
}

/// How the tokens of a sequence see each other.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixer {
    /// Keys and values of every token, shared by groups of query heads.
    Attention(AttentionPlan),
}

/// Attention with grouped query heads.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionPlan {
    /// Heads and their width.
    pub shape: AttentionShape,
    /// How queries and keys are turned by position.
    pub rope: RopePlan,
}

/// A rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopePlan {
    /// Base of the wavelengths.
    pub theta: f64,
    /// Values at the beginning of each head that are turned; even.
    pub rotary_dim: usize,
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
    /// Those that one token uses.
    pub per_token: usize,
    /// Width of one expert.
    pub intermediate: usize,
    /// Do the weights of the chosen sum to 1?
    pub renormalise: bool,
}

/// What a family calls the tensors that not all call alike, within `model.layers.N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// Gate and experts are below this.
    pub moe: &'static str,
    /// An expert's three matrices, in the order of [`Expert`](crate::moe::expert::Expert).
    pub expert: [&'static str; 3],
}
