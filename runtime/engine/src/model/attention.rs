//! Causal attention with grouped query heads and a rotary embedding; its state is the keys and values so far.

use crate::backend::{AttentionShape, Backend};
use crate::load_error::LoadError;
use crate::weights::{Loader, Role, Storage};

/// The four projections.
pub struct Projections<S: Storage> {
    /// `[heads · head_dim, hidden]`
    q: S::Matrix,
    /// `[kv_heads · head_dim, hidden]`
    k: S::Matrix,
    /// `[kv_heads · head_dim, hidden]`
    v: S::Matrix,
    /// `[hidden, heads · head_dim]`
    o: S::Matrix,
}

impl<S: Storage> Projections<S> {
    /// Loads `{prefix}.q_proj.weight` and its three siblings.
    pub fn load(
        loader: &Loader<'_, S>,
        prefix: &str,
        hidden: usize,
        shape: &AttentionShape,
    ) -> Result<Self, LoadError> {
        let matrix = |name, shape| loader.matrix(&format!("{prefix}.{name}_proj.weight"), shape, Role::Dense);
        let (queries, keys) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        Ok(Projections {
            q: matrix("q", [queries, hidden])?,
            k: matrix("k", [keys, hidden])?,
            v: matrix("v", [keys, hidden])?,
            o: matrix("o", [hidden, queries])?,
        })
    }
}

/// One layer's attention, with its state.
pub struct Attention<B: Backend> {
    /// Weights.
    pub projections: Projections<B>,
    /// Heads.
    pub shape: AttentionShape,
    /// Shared by all layers.
    pub rope: B::Rope,
    /// Keys and values of every running sequence.
    pub cache: B::KvBlocks,
}

impl<B: Backend> Attention<B> {
    /// `x` is `[rows, hidden]`, and so is the result.
    pub fn forward(&mut self, backend: &B, batch: &B::Batch<'_>, x: &B::Tensor) -> B::Tensor {
        let Projections { q, k, v, o } = &self.projections;
        let [mut q, mut k, v] = backend.matmul(x, [q, k, v]);
        backend.rotate(&mut q, &self.rope, batch);
        backend.rotate(&mut k, &self.rope, batch);
        let attended = backend.attend([&q, &k, &v], &mut self.cache, batch, &self.shape);
        let [out] = backend.matmul(&attended, [o]);
        out
    }
}
