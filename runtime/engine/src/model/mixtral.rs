//! Mixtral (`MixtralForCausalLM`): grouped-query attention, and a softmax gate that sends each token to its top
//! experts with renormalised weights.

use crate::backend::{AttentionShape, Backend};
use crate::load_error::LoadError;
use crate::model::attention::{Attention, Projections};
use crate::model::config::Config;
use crate::model::{Decoder, DecoderWeights, Layer};
use crate::moe::gate::Gate;
use crate::moe::{Experts, Moe};
use crate::weights::{Loader, Role, Storage};

/// One layer's weights.
pub struct LayerWeights<S: Storage> {
    attention_norm: S::Vector,
    projections: Projections<S>,
    moe_norm: S::Vector,
    moe: Moe<S>,
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
        moe: load_moe(loader, config, &layer)?,
    })
}

fn load_moe<S: Storage>(loader: &Loader<'_, S>, config: &Config, layer: &str) -> Result<Moe<S>, LoadError> {
    let fused = format!("{layer}.mlp.experts.gate_up_proj");
    let (block, experts) = match loader.has(&fused) {
        true => ("mlp", load_fused(loader, config, layer)?),
        false => ("block_sparse_moe", load_separate(loader, config, layer)?),
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
    Ok(Moe { gate, experts })
}

/// One tensor for each matrix of each expert: what HuggingFace checkpoints hold.
fn load_separate<S: Storage>(
    loader: &Loader<'_, S>,
    config: &Config,
    layer: &str,
) -> Result<Experts<S>, LoadError> {
    let Config { hidden, intermediate, experts, .. } = *config;
    let stack = |name: &str, shape: [usize; 2]| -> Result<Vec<S::Matrix>, LoadError> {
        let tensor = |e| format!("{layer}.block_sparse_moe.experts.{e}.{name}.weight");
        (0..experts).map(|e| loader.matrix(&tensor(e), shape, Role::Expert)).collect()
    };
    Ok(Experts {
        w1: stack("w1", [intermediate, hidden])?,
        w2: stack("w2", [hidden, intermediate])?,
        w3: stack("w3", [intermediate, hidden])?,
    })
}

/// One tensor for all experts, w1 above w3: how newer code holds them in memory.
fn load_fused<S: Storage>(
    loader: &Loader<'_, S>,
    config: &Config,
    layer: &str,
) -> Result<Experts<S>, LoadError> {
    let Config { hidden, intermediate, experts, .. } = *config;
    let both = loader
        .tensor(&format!("{layer}.mlp.experts.gate_up_proj"), &[experts, 2 * intermediate, hidden])?
        .rows(0..experts, &[experts * 2 * intermediate, hidden]);
    let down = loader.tensor(&format!("{layer}.mlp.experts.down_proj"), &[experts, hidden, intermediate])?;
    let half = |number: usize| {
        let rows = number * intermediate..(number + 1) * intermediate;
        loader.hold(both.rows(rows, &[intermediate, hidden]), Role::Expert)
    };
    Ok(Experts {
        w1: (0..experts).map(|e| half(2 * e)).collect(),
        w2: (0..experts)
            .map(|e| loader.hold(down.rows(e..e + 1, &[hidden, intermediate]), Role::Expert))
            .collect(),
        w3: (0..experts).map(|e| half(2 * e + 1)).collect(),
    })
}

/// Weights with a cache of `blocks` blocks a layer.
pub fn build<B>(
    backend: B,
    config: &Config,
    weights: DecoderWeights<B, LayerWeights<B>>,
    blocks: usize,
) -> Result<Decoder<B>, LoadError>
where
    B: Backend + 'static,
    B::Rope: Clone,
{
    let (shape, eps) = (attention_shape(config), config.rms_norm_eps);
    let rope = backend.rope(config.rope_theta, config.head_dim);
    let DecoderWeights { embedding, layers, norm, head } = weights;
    let layers = layers.into_iter().map(|weights| {
        let LayerWeights { attention_norm, projections, moe_norm, moe } = weights;
        let cache = backend.kv_blocks(&shape, blocks)?;
        let attention = Attention { projections, shape, rope: rope.clone(), cache };
        let layer = MixtralLayer { attention_norm, attention, moe_norm, moe, eps };
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
    eps: f32,
}

impl<B: Backend> Layer<B> for MixtralLayer<B> {
    fn forward(&mut self, backend: &B, batch: &B::Batch<'_>, x: &mut B::Tensor) {
        let h = backend.rms_norm(x, &self.attention_norm, self.eps);
        let attended = self.attention.forward(backend, batch, &h);
        backend.add(x, &attended);

        let h = backend.rms_norm(x, &self.moe_norm, self.eps);
        let answer = self.moe.forward(backend, &h);
        backend.add(x, &answer);
    }
}
