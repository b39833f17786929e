//! Causal attention with grouped query heads and a rotary embedding; its state is the keys and values so far.

use crate::backend::{AttentionShape, Backend};
use crate::load_error::LoadError;
use crate::model::config::plan::AttentionPlan;
use crate::model::layer::TokenMixer;
use crate::weights::{Loader, Role, Storage};

/// The four projections.
pub struct AttentionWeights<S: Storage> {
    /// `[heads · head_dim, hidden]`
    pub q: S::Matrix,
    /// `[kv_heads · head_dim, hidden]`
    pub k: S::Matrix,
    /// `[kv_heads · head_dim, hidden]`
    pub v: S::Matrix,
    /// `[hidden, heads · head_dim]`
    pub o: S::Matrix,
}

impl<S: Storage> AttentionWeights<S> {
    /// Loads `{prefix}.q_proj.weight` and its three siblings.
    pub fn load(
        loader: &Loader<'_, S>,
        prefix: &str,
        hidden: usize,
        plan: &AttentionPlan,
    ) -> Result<Self, LoadError> {
        let matrix = |name, shape| loader.matrix(&format!("{prefix}.{name}_proj.weight"), shape, Role::Dense);
        let AttentionShape { heads, kv_heads, head_dim, .. } = plan.shape;
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        Ok(AttentionWeights {
            q: matrix("q", [queries, hidden])?,
            k: matrix("k", [keys, hidden])?,
            v: matrix("v", [keys, hidden])?,
            o: matrix("o", [hidden, queries])?,
        })
    }
}

/// One layer's attention, with its state.
pub struct Attention<B: Backend> {
    /// Its weights.
    pub weights: AttentionWeights<B>,
    /// Heads.
    pub shape: AttentionShape,
    /// Shared by all layers of equal angles.
    pub rope: B::Rope,
    /// Keys and values of every running sequence.
    pub cache: B::KvBlocks,
}

impl<B: Backend> TokenMixer<B> for Attention<B> {
    fn forward(&mut self, backend: &B, batch: &B::Batch<'_>, x: &B::Tensor) -> B::Tensor {
        let AttentionWeights { q, k, v, o } = &self.weights;
        let [mut q, mut k, v] = backend.matmul(x, [q, k, v]);
        backend.rotate(&mut q, &self.rope, batch);
        backend.rotate(&mut k, &self.rope, batch);
        let attended = backend.attend([&q, &k, &v], &mut self.cache, batch, &self.shape);
        let [out] = backend.matmul(&attended, [o]);
        out
    }
}
