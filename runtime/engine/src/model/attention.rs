//! Causal attention with grouped query heads and a rotary embedding; its state is the keys and values so far.

use crate::backend::{AttentionShape, Backend};
use crate::load_error::LoadError;
use crate::model::config::plan::{AttentionPlan, QkNorm};
use crate::model::layer::TokenMixer;
use crate::weights::{Loader, Role, Storage};

/// Four projections and what some families put between them.
pub struct AttentionWeights<S: Storage> {
    /// `[heads · head_dim, hidden]`
    pub q: S::Matrix,
    /// `[kv_heads · head_dim, hidden]`
    pub k: S::Matrix,
    /// `[kv_heads · head_dim, hidden]`
    pub v: S::Matrix,
    /// `[hidden, heads · head_dim]`
    pub o: S::Matrix,
    /// Of q, k and v.
    pub qkv_bias: Option<[S::Vector; 3]>,
    /// `[hidden]`
    pub o_bias: Option<S::Vector>,
    /// Gains of queries and keys, of one head or of all.
    pub qk_norm: Option<[S::Vector; 2]>,
    /// `[heads]`
    pub sinks: Option<S::Vector>,
}

impl<S: Storage> AttentionWeights<S> {
    /// Loads `{prefix}.q_proj.weight` and its siblings, as far as `plan` names them.
    pub fn load(
        loader: &Loader<'_, S>,
        prefix: &str,
        hidden: usize,
        plan: &AttentionPlan,
    ) -> Result<Self, LoadError> {
        let matrix = |name, shape| loader.matrix(&format!("{prefix}.{name}_proj.weight"), shape, Role::Dense);
        let vector = |name, length| loader.vector(&format!("{prefix}.{name}"), length);
        let AttentionShape { heads, kv_heads, head_dim, .. } = plan.shape;
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        Ok(AttentionWeights {
            q: matrix("q", [queries, hidden])?,
            k: matrix("k", [keys, hidden])?,
            v: matrix("v", [keys, hidden])?,
            o: matrix("o", [hidden, queries])?,
            qkv_bias: match plan.qkv_bias {
                true => Some([
                    vector("q_proj.bias", queries)?,
                    vector("k_proj.bias", keys)?,
                    vector("v_proj.bias", keys)?,
                ]),
                false => None,
            },
            o_bias: plan.o_bias.then(|| vector("o_proj.bias", hidden)).transpose()?,
            qk_norm: match plan.qk_norm {
                QkNorm::None => None,
                QkNorm::Heads => {
                    Some([vector("q_norm.weight", head_dim)?, vector("k_norm.weight", head_dim)?])
                }
                QkNorm::Whole => Some([vector("q_norm.weight", queries)?, vector("k_norm.weight", keys)?]),
            },
            sinks: plan.sinks.then(|| vector("sinks", heads)).transpose()?,
        })
    }
}

/// One layer's attention, with its state.
pub struct Attention<B: Backend> {
    /// Its weights.
    pub weights: AttentionWeights<B>,
    /// Heads.
    pub shape: AttentionShape,
    /// Added to the mean square in a norm.
    pub eps: f32,
    /// Shared by all layers of equal angles.
    pub rope: B::Rope,
    /// Keys and values of every running sequence.
    pub cache: B::KvBlocks,
}

impl<B: Backend> TokenMixer<B> for Attention<B> {
    fn forward(&mut self, backend: &B, batch: &B::Batch<'_>, x: &B::Tensor) -> B::Tensor {
        let AttentionWeights { q, k, v, o, qkv_bias, o_bias, qk_norm, sinks } = &self.weights;
        let [mut q, mut k, mut v] = backend.matmul(x, [q, k, v]);
        if let Some(biases) = qkv_bias {
            for (x, bias) in [&mut q, &mut k, &mut v].into_iter().zip(biases) {
                backend.add_to_rows(x, bias);
            }
        }
        if let Some([of_q, of_k]) = qk_norm {
            q = backend.rms_norm(&q, of_q, self.eps);
            k = backend.rms_norm(&k, of_k, self.eps);
        }
        backend.rotate(&mut q, &self.rope, batch);
        backend.rotate(&mut k, &self.rope, batch);
        let attended = backend.attend([&q, &k, &v], &mut self.cache, batch, &self.shape, sinks.as_ref());
        let [mut out] = backend.matmul(&attended, [o]);
        if let Some(bias) = o_bias {
            backend.add_to_rows(&mut out, bias);
        }
        out
    }
}
