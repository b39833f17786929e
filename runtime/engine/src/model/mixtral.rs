//! Mixtral (`MixtralForCausalLM`): grouped-query attention, and a softmax gate that sends each token to its top
//! experts with renormalised weights.

use crate::backend::{AttentionShape, Backend};
use crate::load_error::LoadError;
use crate::model::attention::{Attention, Projections};
use crate::model::config::Config;
use crate::model::{Decoder, DecoderWeights, Layer};
use crate::moe::Moe;
use crate::moe::expert::{Expert, LayerExperts};
use crate::moe::gate::Gate;
use crate::moe::ranks::{LayerRanks, Ranks};
use crate::weights::{Loader, Role, Storage};
use std::rc::Rc;
use std::sync::Arc;

/// One layer's weights.
pub struct LayerWeights<S: Storage> {
    attention_norm: S::Vector,
    projections: Projections<S>,
    moe_norm: S::Vector,
    moe: Moe<S>,
}

impl<S: Storage> LayerWeights<S> {
    /// Its experts.
    pub fn experts(&self) -> &Arc<LayerExperts<S>> {
        &self.moe.experts
    }
}

/// The form of a layer's attention.
pub fn attention_shape(config: &Config) -> AttentionShape {
    AttentionShape {
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        scale: 1.0 / (config.head_dim as f32).sqrt(),
    }
}

/// Loads layer `l`.
pub fn load_layer<S: Storage>(
    loader: &Loader<'_, S>,
    config: &Config,
    l: usize,
) -> Result<LayerWeights<S>, LoadError> {
    let layer = format!("model.layers.{l}");
    let norm = |name| loader.vector(&format!("{layer}.{name}.weight"), config.hidden);
    Ok(LayerWeights {
        attention_norm: norm("input_layernorm")?,
        projections: Projections::load(
            loader,
            &format!("{layer}.self_attn"),
            config.hidden,
            &attention_shape(config),
        )?,
        moe_norm: norm("post_attention_layernorm")?,
        moe: load_moe(loader, config, l)?,
    })
}

fn load_moe<S: Storage>(loader: &Loader<'_, S>, config: &Config, l: usize) -> Result<Moe<S>, LoadError> {
    let layer = format!("model.layers.{l}");
    let block = match loader.has(&format!("{layer}.mlp.experts.gate_up_proj")) {
        true => "mlp",
        false => "block_sparse_moe",
    };
    let gate = Gate {
        weight: loader.matrix(
            &format!("{layer}.{block}.gate.weight"),
            [config.experts, config.hidden],
            Role::Kept,
        )?,
        experts_per_token: config.experts_per_token,
        renormalise: true,
    };
    let expert = |e| match loader.wants(l, e) {
        true => load_expert(loader, config, l, e).map(Some),
        false => loader.skip(|loader| load_expert(loader, config, l, e)).map(|()| None),
    };
    let experts = (0..config.experts).map(expert).collect::<Result<_, _>>()?;
    Ok(Moe { gate, experts: Arc::new(LayerExperts::new(experts)) })
}

/// Layer `l`'s expert `e`: one tensor for each of its matrices, as HuggingFace checkpoints have it, or part of one
/// tensor for all experts, w1 above w3, as newer code holds them in memory.
pub fn load_expert<S: Storage>(
    loader: &Loader<'_, S>,
    config: &Config,
    l: usize,
    e: usize,
) -> Result<Expert<S>, LoadError> {
    let Config { hidden, intermediate, experts, .. } = *config;
    let layer = format!("model.layers.{l}");
    let fused = format!("{layer}.mlp.experts.gate_up_proj");
    if !loader.has(&fused) {
        let matrix = |name: &str, shape| {
            loader.matrix(&format!("{layer}.block_sparse_moe.experts.{e}.{name}.weight"), shape, Role::Expert)
        };
        return Ok(Expert {
            w1: matrix("w1", [intermediate, hidden])?,
            w2: matrix("w2", [hidden, intermediate])?,
            w3: matrix("w3", [intermediate, hidden])?,
        });
    }
    let both = loader
        .tensor(&fused, &[experts, 2 * intermediate, hidden])?
        .rows(0..experts, &[experts * 2 * intermediate, hidden]);
    let down = loader.tensor(&format!("{layer}.mlp.experts.down_proj"), &[experts, hidden, intermediate])?;
    let half = |number: usize| {
        let rows = number * intermediate..(number + 1) * intermediate;
        loader.hold(both.rows(rows, &[intermediate, hidden]), Role::Expert)
    };
    Ok(Expert {
        w1: half(2 * e),
        w2: loader.hold(down.rows(e..e + 1, &[hidden, intermediate]), Role::Expert),
        w3: half(2 * e + 1),
    })
}

/// Weights with a cache of `blocks` blocks a layer; `ranks` where the experts are spread over several.
pub fn build<B>(
    backend: B,
    config: &Config,
    weights: DecoderWeights<B, LayerWeights<B>>,
    blocks: usize,
    ranks: Option<Rc<Ranks>>,
) -> Result<Decoder<B>, LoadError>
where
    B: Backend + 'static,
    B::Rope: Clone,
{
    let (shape, eps) = (attention_shape(config), config.rms_norm_eps);
    let rope = backend.rope(config.rope_theta, config.head_dim);
    let DecoderWeights { embedding, layers, norm, head } = weights;
    let layers = layers.into_iter().enumerate().map(|(l, weights)| {
        let LayerWeights { attention_norm, projections, moe_norm, moe } = weights;
        let cache = backend.kv_blocks(&shape, blocks)?;
        let attention = Attention { projections, shape, rope: rope.clone(), cache };
        let ranks = ranks.clone().map(|ranks| LayerRanks { layer: l as u16, ranks });
        let layer = MixtralLayer { attention_norm, attention, moe_norm, moe, ranks, eps };
        Ok(Box::new(layer) as Box<dyn Layer<B>>)
    });
    let layers = layers.collect::<Result<_, LoadError>>()?;
    Ok(Decoder::new(backend, embedding, layers, norm, head, eps, config.vocabulary))
}

struct MixtralLayer<B: Backend> {
    attention_norm: B::Vector,
    attention: Attention<B>,
    moe_norm: B::Vector,
    moe: Moe<B>,
    ranks: Option<LayerRanks>,
    eps: f32,
}

impl<B: Backend> Layer<B> for MixtralLayer<B> {
    fn forward(&mut self, backend: &B, batch: &B::Batch<'_>, x: &mut B::Tensor) {
        let h = backend.rms_norm(x, &self.attention_norm, self.eps);
        let attended = self.attention.forward(backend, batch, &h);
        backend.add(x, &attended);

        let h = backend.rms_norm(x, &self.moe_norm, self.eps);
        let answer = self.moe.forward(backend, &h, self.ranks.as_ref());
        backend.add(x, &answer);
    }
}
