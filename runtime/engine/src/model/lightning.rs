//! Lightning attention (MiniMax-01, arXiv:2501.08313): linear attention whose state is one decaying sum of kᵀ v for
//! each head, of the same size whatever the context. No rotary embedding, no scaling, no softmax.

use crate::backend::Backend;
use crate::load_error::LoadError;
use crate::model::config::plan::LightningPlan;
use crate::model::layer::TokenMixer;
use crate::weights::{Loader, Role, Storage};

/// The projections of one layer.
pub struct LightningWeights<S: Storage> {
    /// `[heads · 3 · head_dim, hidden]`: query, key and value of the first head, then those of the second.
    pub qkv: S::Matrix,
    /// `[heads · head_dim, hidden]`
    pub gate: S::Matrix,
    /// Of all heads together, `[heads · head_dim]`.
    pub norm: S::Vector,
    /// `[hidden, heads · head_dim]`
    pub out: S::Matrix,
}

impl<S: Storage> LightningWeights<S> {
    /// Loads `{prefix}.qkv_proj.weight` and its siblings.
    pub fn load(
        loader: &Loader<'_, S>,
        prefix: &str,
        hidden: usize,
        plan: &LightningPlan,
    ) -> Result<Self, LoadError> {
        let matrix = |name, shape| loader.matrix(&format!("{prefix}.{name}.weight"), shape, Role::Dense);
        let width = plan.heads() * plan.head_dim;
        Ok(LightningWeights {
            qkv: matrix("qkv_proj", [3 * width, hidden])?,
            gate: matrix("output_gate", [width, hidden])?,
            norm: loader.vector(&format!("{prefix}.norm.weight"), width)?,
            out: matrix("out_proj", [hidden, width])?,
        })
    }
}

/// One layer's lightning attention, with its state.
pub struct Lightning<B: Backend> {
    /// Its weights.
    pub weights: LightningWeights<B>,
    /// Of every running sequence, and snapshots.
    pub states: B::States,
    /// Added to the mean square in the norm.
    pub eps: f32,
}

impl<B: Backend> TokenMixer<B> for Lightning<B> {
    fn forward(&mut self, backend: &B, batch: &B::Batch<'_>, x: &B::Tensor) -> B::Tensor {
        let LightningWeights { qkv, gate, norm, out } = &self.weights;
        let [mut qkv, gate] = backend.matmul(x, [qkv, gate]);
        backend.silu(&mut qkv);
        let attended = backend.lightning(&qkv, &mut self.states, batch);
        let mut normed = backend.rms_norm(&attended, norm, self.eps);
        backend.sigmoid_mul(&mut normed, &gate);
        let [out] = backend.matmul(&normed, [out]);
        out
    }
}
