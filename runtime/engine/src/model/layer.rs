//! One decoder layer: a mixer, through which tokens see each other, and a feed-forward network, each behind a norm and
//! beside the residual stream.

use crate::backend::Backend;
use crate::load_error::LoadError;
use crate::model::Room;
use crate::model::attention::{Attention, AttentionWeights};
use crate::model::config::Config;
use crate::model::config::plan::{Blend, LayerPlan, Mixer, Mlp, Names, Residual};
use crate::model::decoder::Ropes;
use crate::model::experts::load_moe;
use crate::model::latent::{LatentAttention, LatentWeights};
use crate::model::lightning::{Lightning, LightningWeights};
use crate::moe::Moe;
use crate::moe::expert::{Expert, LayerExperts};
use crate::moe::ranks::LayerRanks;
use crate::weights::{Loader, Role, Storage};
use std::sync::Arc;

/// A mixer with its state: for every block of the cache whatever it needs to go on behind it, keys and values or a
/// compressed latent; or a running state for every sequence ([`state`](crate::state)).
///
/// Blocks are shared. A mixer writes a block's state when the batch holds the block's rows, never again after it is
/// full, and lets a sequence see the blocks that sequences before it in the same batch have written.
pub trait TokenMixer<B: Backend> {
    /// `x` is `[rows, hidden]`, and so is the result; adds the batch's rows to the state.
    fn forward(&mut self, backend: &B, batch: &B::Batch<'_>, x: &B::Tensor) -> B::Tensor;
}

/// One layer's weights.
pub struct LayerWeights<S: Storage> {
    /// Before the mixer, `[hidden]`.
    pub mixer_norm: S::Vector,
    /// How tokens see each other.
    pub mixer: MixerWeights<S>,
    /// Behind the mixer in a [sandwich](Residual::Sandwich), `[hidden]`.
    pub mixed_norm: Option<S::Vector>,
    /// Before the feed-forward network, `[hidden]`.
    pub mlp_norm: S::Vector,
    /// What each token does by itself.
    pub mlp: MlpWeights<S>,
    /// Behind it in a sandwich, `[hidden]`.
    pub answer_norm: Option<S::Vector>,
}

/// The weights of a [`Mixer`].
pub enum MixerWeights<S: Storage> {
    /// Attention with grouped query heads.
    Attention(AttentionWeights<S>),
    /// Latent attention.
    Latent(LatentWeights<S>),
    /// Lightning attention.
    Lightning(LightningWeights<S>),
}

/// The weights of an [`Mlp`].
pub enum MlpWeights<S: Storage> {
    /// One network for all tokens: an expert that everybody uses.
    Dense(Expert<S>),
    /// Experts and their gate.
    Moe(Moe<S>),
}

impl<S: Storage> LayerWeights<S> {
    /// Loads layer `l`, the `number`-th with experts if it has any.
    pub fn load(
        loader: &Loader<'_, S>,
        config: &Config,
        plan: &LayerPlan,
        l: usize,
        number: usize,
    ) -> Result<Self, LoadError> {
        let Config { hidden, .. } = *config;
        let layer = format!("model.layers.{l}");
        let norm = |name| loader.vector(&format!("{layer}.{name}.weight"), hidden);
        // In a sandwich, the name of old is another norm's.
        let (mixed_norm, mlp_norm, answer_norm) = match plan.residual {
            Residual::Plain | Residual::Normalised { .. } => (None, "post_attention_layernorm", None),
            Residual::Sandwich => {
                (Some("post_attention_layernorm"), "pre_mlp_layernorm", Some("post_mlp_layernorm"))
            }
        };
        Ok(LayerWeights {
            mixer_norm: norm("input_layernorm")?,
            mixer: match &plan.mixer {
                Mixer::Attention(plan) => {
                    let attention = format!("{layer}.self_attn");
                    MixerWeights::Attention(AttentionWeights::load(loader, &attention, hidden, plan)?)
                }
                Mixer::Latent(plan) => {
                    let attention = format!("{layer}.self_attn");
                    MixerWeights::Latent(LatentWeights::load(loader, &attention, hidden, plan)?)
                }
                Mixer::Lightning(plan) => {
                    let attention = format!("{layer}.self_attn");
                    MixerWeights::Lightning(LightningWeights::load(loader, &attention, hidden, plan)?)
                }
            },
            mixed_norm: mixed_norm.map(norm).transpose()?,
            mlp_norm: norm(mlp_norm)?,
            mlp: match &plan.mlp {
                Mlp::Dense { intermediate } => {
                    let (mlp, shape) = (format!("{layer}.mlp"), [*intermediate, hidden]);
                    let network = Expert::load(loader, &mlp, Names::USUAL.expert, shape, Role::Dense)?;
                    MlpWeights::Dense(network)
                }
                Mlp::Moe(plan) => MlpWeights::Moe(load_moe(loader, config, plan, l, number)?),
            },
            answer_norm: answer_norm.map(norm).transpose()?,
        })
    }

    /// Its experts, if it has any.
    pub fn experts(&self) -> Option<&Arc<LayerExperts<S>>> {
        match &self.mlp {
            MlpWeights::Moe(moe) => Some(&moe.experts),
            MlpWeights::Dense(_) => None,
        }
    }
}

/// One layer of a model that runs.
pub struct DecoderLayer<B: Backend> {
    mixer_norm: B::Vector,
    mixer: Box<dyn TokenMixer<B>>,
    mixed_norm: Option<B::Vector>,
    mlp_norm: B::Vector,
    mlp: MlpWeights<B>,
    answer_norm: Option<B::Vector>,
    residual: Residual,
    ranks: Option<LayerRanks>,
    eps: f32,
}

impl<B: Backend + 'static> DecoderLayer<B> {
    /// Weights with `room` for sequences; `ranks` where its experts are spread over several.
    pub fn new(
        backend: &B,
        ropes: &mut Ropes<B>,
        plan: &LayerPlan,
        weights: LayerWeights<B>,
        room: Room,
        ranks: Option<LayerRanks>,
        eps: f32,
    ) -> Result<Self, LoadError>
    where
        B::Rope: Clone,
    {
        let LayerWeights { mixer_norm, mixer, mixed_norm, mlp_norm, mlp, answer_norm } = weights;
        let mixer: Box<dyn TokenMixer<B>> = match (&plan.mixer, mixer) {
            (Mixer::Attention(plan), MixerWeights::Attention(weights)) => {
                let rope = ropes.get(backend, &plan.rope, plan.shape.head_dim);
                let cache = backend.kv_blocks(&plan.shape, room.blocks)?;
                Box::new(Attention { weights, shape: plan.shape, eps, rope, cache })
            }
            (Mixer::Latent(plan), MixerWeights::Latent(weights)) => {
                let rope = ropes.get(backend, &plan.rope, plan.shape.rope);
                let cache = backend.latent_blocks(&plan.shape, room.blocks)?;
                Box::new(LatentAttention { weights, plan: plan.clone(), rope, cache })
            }
            (Mixer::Lightning(plan), MixerWeights::Lightning(weights)) => {
                Box::new(Lightning { weights, states: backend.states(plan, room.states)?, eps })
            }
            _ => unreachable!("weights follow the plan"),
        };
        let residual = plan.residual;
        Ok(DecoderLayer { mixer_norm, mixer, mixed_norm, mlp_norm, mlp, answer_norm, residual, ranks, eps })
    }

    /// Replaces the residual stream `x`, `[rows, hidden]`, and adds the batch's rows to the state.
    pub fn forward(&mut self, backend: &B, batch: &B::Batch<'_>, x: &mut B::Tensor) {
        let h = backend.rms_norm(x, &self.mixer_norm, self.eps);
        let mixed = self.mixer.forward(backend, batch, &h);
        let mixed = self.normed(backend, mixed, self.mixed_norm.as_ref());
        go_on(backend, x, h, &mixed, self.residual.mixer());

        let h = backend.rms_norm(x, &self.mlp_norm, self.eps);
        let answer = match &self.mlp {
            MlpWeights::Dense(network) => network.forward(backend, &h),
            MlpWeights::Moe(moe) => moe.forward(backend, &h, self.ranks.as_ref()),
        };
        let answer = self.normed(backend, answer, self.answer_norm.as_ref());
        go_on(backend, x, h, &answer, self.residual.mlp());
    }

    fn normed(&self, backend: &B, answer: B::Tensor, norm: Option<&B::Vector>) -> B::Tensor {
        match norm {
            Some(norm) => backend.rms_norm(&answer, norm, self.eps),
            None => answer,
        }
    }
}

/// The residual stream behind a part that made `y` of `h`, the normalised `x`: `x + y`, or a blend of `h` and `y`.
fn go_on<B: Backend>(backend: &B, x: &mut B::Tensor, mut h: B::Tensor, y: &B::Tensor, blend: Option<Blend>) {
    match blend {
        None => backend.add(x, y),
        Some(weights) => {
            backend.blend(&mut h, y, weights);
            *x = h;
        }
    }
}
