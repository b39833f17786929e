//! Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): keys and values of all heads are made from one short
//! latent a token, and only that and a rotated key, which all heads share, are remembered.
//!
//! Computed in the absorbed form. A head's score of a token is q · (K c) = (Kᵀ q) · c, so queries take up the key
//! matrices and meet the latents c as they are cached; the mean of values V c is V times the mean of latents. Prefill is
//! computed the same way, though made keys and values would cost less there: a row's bits may not depend on how a
//! prompt is cut.

use crate::backend::{Backend, LatentShape};
use crate::load_error::LoadError;
use crate::model::config::plan::LatentPlan;
use crate::model::layer::TokenMixer;
use crate::weights::written::Written;
use crate::weights::{Loader, Role, Storage};

/// The projections of one layer.
pub struct LatentWeights<S: Storage> {
    /// From the residual stream to queries.
    pub q: QueryWeights<S>,
    /// To the latent and the rotated key, `[latent + rope, hidden]`.
    pub kv: S::Matrix,
    /// Of the latent, `[latent]`.
    pub kv_norm: S::Vector,
    /// Of each head, from the not rotated part of its query to what meets latents, `[latent, nope]`: the transpose of
    /// the matrix that makes its keys.
    pub keys: Vec<S::Matrix>,
    /// Of each head, from a latent to its value, `[value, latent]`.
    pub values: Vec<S::Matrix>,
    /// `[hidden, heads · value]`
    pub o: S::Matrix,
}

/// How queries are made, `[heads · (nope + rope)]` of them in the end.
pub enum QueryWeights<S: Storage> {
    /// At once.
    Whole(S::Matrix),
    /// By way of a latent of their own.
    Compressed {
        /// `[q_latent, hidden]`
        down: S::Matrix,
        /// `[q_latent]`
        norm: S::Vector,
        /// `[heads · (nope + rope), q_latent]`
        up: S::Matrix,
    },
}

impl<S: Storage> LatentWeights<S> {
    /// Loads `{prefix}.kv_a_proj_with_mqa.weight` and its siblings.
    ///
    /// What makes keys and values from latents is never quantized: it is 0.15 % of DeepSeek-V3's parameters, and an error
    /// in it is one in every score. Its int8 form would have to be cut along the other side for keys, too.
    pub fn load(
        loader: &Loader<'_, S>,
        prefix: &str,
        hidden: usize,
        plan: &LatentPlan,
    ) -> Result<Self, LoadError> {
        let name = |name| format!("{prefix}.{name}.weight");
        let matrix = |of, shape| loader.matrix(&name(of), shape, Role::Dense);
        let LatentPlan { shape: LatentShape { heads, latent, rope, .. }, nope, value, .. } = *plan;
        let queries = heads * (nope + rope);
        let q = match plan.q_latent {
            None => QueryWeights::Whole(matrix("q_proj", [queries, hidden])?),
            Some(width) => QueryWeights::Compressed {
                down: matrix("q_a_proj", [width, hidden])?,
                norm: loader.vector(&name("q_a_layernorm"), width)?,
                up: matrix("q_b_proj", [queries, width])?,
            },
        };
        let kv = matrix("kv_a_proj_with_mqa", [latent + rope, hidden])?;
        let kv_norm = loader.vector(&name("kv_a_layernorm"), latent)?;
        // Head by head the rows that make its key, then those that make its value.
        let both = loader.tensor(&name("kv_b_proj"), &[heads * (nope + value), latent])?;
        let rows = |from, count| both.rows(from..from + count, &[count, latent]);
        let first = |head| head * (nope + value);
        let key =
            |head| Written::Columns { view: rows(first(head), nope), outputs: latent, first: 0, step: 1 };
        let keys = (0..heads).map(|head| loader.hold(key(head), Role::Kept));
        let values = (0..heads).map(|head| Written::Rows(rows(first(head) + nope, value)));
        let values = values.map(|value| loader.hold(value, Role::Kept));
        Ok(LatentWeights {
            q,
            kv,
            kv_norm,
            keys: keys.collect::<Result<_, _>>()?,
            values: values.collect::<Result<_, _>>()?,
            o: matrix("o_proj", [hidden, heads * value])?,
        })
    }
}

/// One layer's latent attention, with its state.
pub struct LatentAttention<B: Backend> {
    /// Its weights.
    pub weights: LatentWeights<B>,
    /// Its form.
    pub plan: LatentPlan,
    /// Shared by all layers.
    pub rope: B::Rope,
    /// Latents and rotated keys of every running sequence.
    pub cache: B::LatentBlocks,
}

impl<B: Backend> LatentAttention<B> {
    /// Queries, and latents with their rotated keys behind them, before norm and rotation.
    fn project(&self, backend: &B, x: &B::Tensor) -> [B::Tensor; 2] {
        match &self.weights.q {
            QueryWeights::Whole(q) => backend.matmul(x, [q, &self.weights.kv]),
            QueryWeights::Compressed { down, norm, up } => {
                let [q, kv] = backend.matmul(x, [down, &self.weights.kv]);
                let [q] = backend.matmul(&backend.rms_norm(&q, norm, self.plan.eps), [up]);
                [q, kv]
            }
        }
    }
}

impl<B: Backend> TokenMixer<B> for LatentAttention<B> {
    fn forward(&mut self, backend: &B, batch: &B::Batch<'_>, x: &B::Tensor) -> B::Tensor {
        let LatentPlan { shape, nope, eps, .. } = self.plan;
        let [q, kv] = self.project(backend, x);
        let LatentWeights { kv_norm, keys, values, o, .. } = &self.weights;

        let [latent, mut key] = backend.split(&kv, shape.latent + shape.rope, shape.latent);
        let latent = backend.rms_norm(&latent, kv_norm, eps);
        backend.rotate(&mut key, &self.rope, batch);

        let [q, mut rotated] = backend.split(&q, nope + shape.rope, nope);
        backend.rotate(&mut rotated, &self.rope, batch);
        let q = backend.join(&backend.per_head(&q, keys), &rotated, shape.heads);

        let attended = backend.attend_latent(&q, &latent, &key, &mut self.cache, batch, &shape);
        let [out] = backend.matmul(&backend.per_head(&attended, values), [o]);
        out
    }
}
