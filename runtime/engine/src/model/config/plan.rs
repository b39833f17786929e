//! What a layer computes, as numbers and choices: the description that engine and slow loop alike interpret.

use crate::backend::AttentionShape;

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
            Residual::Plain => None,
            Residual::Normalised { mixer, .. } => Some(*mixer),
        }
    }

    /// How what each token does by itself comes back, if blended.
    pub fn mlp(&self) -> Option<Blend> {
        match self {
            Residual::Plain => None,
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
