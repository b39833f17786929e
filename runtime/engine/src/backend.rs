//! What a device must be able to do: hold tensors, and the list of operations that every model is written in.
//!
//! Activations are row-major f32, `[rows, width]`. Operations return new tensors; a backend recycles the memory of
//! dropped ones, so that a step allocates nothing once it has seen its largest batch. They cannot fail: what could go
//! wrong with a request was refused before, and a device that breaks takes the rank with it.
//!
//! A row's result depends on that row (and its sequence's cache) alone, never on what else is in the batch: the same
//! request gives the same tokens whatever runs beside it.

pub mod cpu;
pub mod cuda;

use crate::batch::{Batch, Draw};
use crate::load_error::LoadError;
use crate::model::Need;
use crate::model::config::plan::{Activation, Blend, LightningPlan};
use crate::model::config::rope::RopePlan;
use crate::moe::expert::Expert;
use crate::state::StateRoom;
use crate::weights::Storage;
use coterie_api::launch::Activations;
use coterie_kernels::gate::Rule;

/// The form of one attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads; query head h reads KV head `h / (heads / kv_heads)`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on q·k.
    pub scale: f32,
    /// How many tokens a token sees, itself counted, if not all before it.
    pub window: Option<usize>,
}

impl AttentionShape {
    /// Bytes of keys and values that one token leaves in a layer's cache (f32).
    pub fn bytes_per_token(&self) -> usize {
        2 * self.kv_heads * self.head_dim * size_of::<f32>()
    }
}

/// The form of one latent attention layer: every head scores the same cached rows, and attends to their beginnings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatentShape {
    /// Query heads.
    pub heads: usize,
    /// Values of a token's compressed latent, the beginning of its row.
    pub latent: usize,
    /// Values of its rotated key, the rest of its row.
    pub rope: usize,
    /// Factor on q·k.
    pub scale: f32,
}

impl LatentShape {
    /// Bytes that one token leaves in a layer's cache (f32).
    pub fn bytes_per_token(&self) -> usize {
        (self.latent + self.rope) * size_of::<f32>()
    }
}

/// The experts of each token: `[tokens, per_token]`, best first, in host memory, where tokens are dispatched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// Expert numbers.
    pub experts: Vec<u32>,
    /// What each expert's output is multiplied with.
    pub weights: Vec<f32>,
    /// Experts of one token.
    pub per_token: usize,
}

/// What a step leaves: `all`, the residual stream, and the logits of every row, `[rows, vocabulary]`.
pub struct Step<T> {
    /// `[rows, hidden]`
    pub all: T,
    /// `[rows, vocabulary]`
    pub logits: T,
}

/// A device.
pub trait Backend: Storage<Matrix: Send + Sync, Vector: Send + Sync> {
    /// Activations `[rows, width]`.
    type Tensor;
    /// One layer's cached keys and values, in blocks.
    type KvBlocks;
    /// One layer's cached latents and rotated keys, in blocks.
    type LatentBlocks;
    /// One layer's running states: a slot for each running sequence, and snapshots.
    type States;
    /// The angles of a rotary embedding.
    type Rope;
    /// A batch whose arrays lie where the operations read them.
    type Batch<'a>;

    /// Refuses a model that the device cannot compute, or has no memory for, before anything of it is loaded.
    fn check(&self, _need: &Need<'_>) -> Result<(), LoadError> {
        Ok(())
    }
    /// Makes a batch readable for the device, once a step.
    fn place<'a>(&self, batch: &'a Batch) -> Self::Batch<'a>;
    /// Has it recorded steps that it [repeats](Backend::repeat)?
    fn repeats(&self) -> bool {
        false
    }
    /// What `compute` makes of a batch, if the device keeps what such a step asks for and repeats it at once; the very bits that
    /// it gives by itself. There may be rows behind the batch's own. None if it does not, or not with this batch.
    ///
    /// `compute` must ask for the same whenever it is called for the same device, but for the batch that it is given.
    fn repeat(
        &self,
        _batch: &Batch,
        _compute: impl FnMut(&Self::Batch<'_>) -> Step<Self::Tensor>,
    ) -> Option<Step<Self::Tensor>> {
        None
    }
    /// Room for `blocks` blocks of one layer's keys and values. Memory that is never written costs nothing.
    fn kv_blocks(&self, shape: &AttentionShape, blocks: usize) -> Result<Self::KvBlocks, LoadError>;
    /// The same for one layer's latents and rotated keys.
    fn latent_blocks(&self, shape: &LatentShape, blocks: usize) -> Result<Self::LatentBlocks, LoadError>;
    /// The same for one layer's running states.
    fn states(&self, plan: &LightningPlan, room: StateRoom) -> Result<Self::States, LoadError>;
    /// A rotary embedding of heads of `head_dim` values.
    fn rope(&self, plan: &RopePlan, head_dim: usize) -> Self::Rope;

    /// The rows of `table` that the batch's tokens name.
    fn embed(&self, table: &Self::Matrix, batch: &Self::Batch<'_>) -> Self::Tensor;
    /// `x / √(mean(x²) + eps) · weight`, for every row's every piece as long as `weight`.
    fn rms_norm(&self, x: &Self::Tensor, weight: &Self::Vector, eps: f32) -> Self::Tensor;
    /// `x · wᵀ` for each of several matrices.
    fn matmul<const N: usize>(&self, x: &Self::Tensor, w: [&Self::Matrix; N]) -> [Self::Tensor; N];
    /// Turns every head of every row by its position.
    fn rotate(&self, x: &mut Self::Tensor, rope: &Self::Rope, batch: &Self::Batch<'_>);
    /// Of `q`, `k`, `v`: puts k and v into the cache, then lets each row of q attend to its sequence up to itself. Sinks,
    /// one a query head, join the denominators of its softmax.
    fn attend(
        &self,
        qkv: [&Self::Tensor; 3],
        cache: &mut Self::KvBlocks,
        batch: &Self::Batch<'_>,
        shape: &AttentionShape,
        sinks: Option<&Self::Vector>,
    ) -> Self::Tensor;
    /// Of `x`, rows of heads of `width` values: the first `first` values of every head, and the others.
    fn split(&self, x: &Self::Tensor, width: usize, first: usize) -> [Self::Tensor; 2];
    /// Behind every head of `a` that of `b`, each row having `heads` of them.
    fn join(&self, a: &Self::Tensor, b: &Self::Tensor, heads: usize) -> Self::Tensor;
    /// Head h of every row of `x` times `w[h]`ᵀ.
    fn per_head(&self, x: &Self::Tensor, w: &[Self::Matrix]) -> Self::Tensor;
    /// Puts `latent` and `key`, `[rows, latent]` and `[rows, rope]`, into the cache, then lets each row of `q`,
    /// `[rows, heads · (latent + rope)]`, attend to its sequence up to itself: `[rows, heads · latent]`.
    fn attend_latent(
        &self,
        q: &Self::Tensor,
        latent: &Self::Tensor,
        key: &Self::Tensor,
        cache: &mut Self::LatentBlocks,
        batch: &Self::Batch<'_>,
        shape: &LatentShape,
    ) -> Self::Tensor;
    /// Of `qkv`, `[rows, heads · 3 · head_dim]`: brings every sequence's state from its origin up to its rows, makes the
    /// snapshots that the batch asks for, and gives each row what its query finds in the state up to itself,
    /// `[rows, heads · head_dim]`.
    fn lightning(
        &self,
        qkv: &Self::Tensor,
        states: &mut Self::States,
        batch: &Self::Batch<'_>,
    ) -> Self::Tensor;
    /// `x += y`.
    fn add(&self, x: &mut Self::Tensor, y: &Self::Tensor);
    /// `x = α · x + β · y`.
    fn blend(&self, x: &mut Self::Tensor, y: &Self::Tensor, weights: Blend);
    /// `x = silu(x)`.
    fn silu(&self, x: &mut Self::Tensor);
    /// `x = x ⊙ σ(gate)`.
    fn sigmoid_mul(&self, x: &mut Self::Tensor, gate: &Self::Tensor);
    /// `x[row] += bias`.
    fn add_to_rows(&self, x: &mut Self::Tensor, bias: &Self::Vector);
    /// `x[row] *= sigmoid(gates[row])`; `gates` is `[rows, 1]`.
    fn gate_rows(&self, x: &mut Self::Tensor, gates: &Self::Tensor);
    /// What a feed-forward network makes of its two halves.
    fn activate(&self, activation: Activation, gate: &Self::Tensor, up: &Self::Tensor) -> Self::Tensor;

    /// The experts of each row by `rule`; `correction` is added to the scores that choose.
    fn choose(&self, logits: &Self::Tensor, correction: Option<&Self::Vector>, rule: &Rule) -> Choice;
    /// What all of a layer's `experts` together make of `x` by `rule`, as [`choose`](Backend::choose) and what follows it would
    /// come to, the very same bits, if the device dispatches tokens by itself. None if it does not, or not with these.
    fn experts(
        &self,
        _x: &Self::Tensor,
        _logits: &Self::Tensor,
        _correction: Option<&Self::Vector>,
        _rule: &Rule,
        _experts: &[&Expert<Self>],
    ) -> Option<Self::Tensor>
    where
        Self: Sized,
    {
        None
    }
    /// The rows that `rows` lists.
    fn gather(&self, x: &Self::Tensor, rows: &[u32]) -> Self::Tensor;
    /// Rows `offsets[e]..offsets[e + 1]` of `x` times matrix e, for each of several lists of matrices.
    fn grouped_matmul<const N: usize>(
        &self,
        x: &Self::Tensor,
        offsets: &[u32],
        w: [&[&Self::Matrix]; N],
    ) -> [Self::Tensor; N];
    /// Adds `biases[e]` to rows `offsets[e]..offsets[e + 1]` of `x`.
    fn grouped_add(&self, x: &mut Self::Tensor, offsets: &[u32], biases: &[&Self::Vector]);
    /// `out[t] = Σ_j weights[t, j] · x[rows[t, j]]`, j from 0 to `per_token`.
    fn combine(&self, x: &Self::Tensor, rows: &[u32], weights: &[f32], per_token: usize) -> Self::Tensor;

    /// Rows of `x`.
    fn rows(&self, x: &Self::Tensor) -> usize;
    /// Values of a row of `x`.
    fn width(&self, x: &Self::Tensor) -> usize;
    /// Appends every row of `x` to host memory as [`activations::encode`](crate::moe::activations::encode) has it.
    fn encode(&self, activations: Activations, x: &Self::Tensor, out: &mut Vec<u8>);
    /// The rows of `width` values that were encoded as `bytes`.
    fn decode(&self, activations: Activations, bytes: &[u8], width: usize) -> Self::Tensor;
    /// Memory of a matrix, bytes.
    fn bytes(matrix: &Self::Matrix) -> usize;

    /// Makes every value of a row from column `first` on -∞.
    fn forbid(&self, x: &mut Self::Tensor, first: usize);
    /// Column and value of a row's largest value; the lowest on a tie; a NaN only if all are.
    fn argmax(&self, x: &Self::Tensor, row: usize) -> (u32, f32);
    /// Draws a token from each row, if the device can: see [`drawn`](Backend::drawn).
    fn draw(&self, _x: &mut Self::Tensor, _draws: &[Draw]) {}
    /// The token that the device drew from a row, if it did: `None` in it where the largest value is no finite number.
    fn drawn(&self, _x: &Self::Tensor, _row: usize) -> Option<Option<u32>> {
        None
    }
    /// log_softmax of a row at `token`, and the `n` best columns with theirs, best first, ties lowest first.
    fn log_softmax_top(&self, x: &Self::Tensor, row: usize, token: u32, n: usize) -> (f32, Vec<(u32, f32)>);
    /// Replaces `out` with a row.
    fn copy_row(&self, x: &Self::Tensor, row: usize, out: &mut Vec<f32>);
}
