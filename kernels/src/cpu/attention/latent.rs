//! Multi-head latent attention in its absorbed form (DeepSeek-V2, arXiv:2405.04434): a token leaves one row in the
//! cache, its compressed latent and behind it the rotated key that all heads share. A query that has taken up the
//! heads' key matrix meets these rows as they are; what it attends to is a mean of latents, which the heads' value
//! matrix turns into values. So this is attention with one KV head whose values are the beginnings of its keys.
//!
//! Cache layout: `[block, block_size, latent + rope]`.

use super::super::disjoint::Disjoint;
use super::super::lanes::{LANES, tree_sum};
use super::super::pool::Pool;
use super::{Layout, Sequence, attend, attend_reference, check_sequences, unit};

/// Sizes of a latent attention layer and its cache.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Query heads.
    pub heads: usize,
    /// Values of a compressed latent.
    pub latent: usize,
    /// Values of the rotated key.
    pub rope: usize,
    /// Tokens per block; a multiple of 16.
    pub block_size: usize,
    /// Factor on q·k.
    pub scale: f32,
}

impl Shape {
    /// Floats per token of the cache.
    pub fn width(&self) -> usize {
        self.latent + self.rope
    }

    /// Floats per block of the cache.
    pub fn block_len(&self) -> usize {
        self.block_size * self.width()
    }

    fn grouped(&self) -> super::Shape {
        let Shape { heads, block_size, scale, .. } = *self;
        super::Shape { q_heads: heads, kv_heads: 1, head_dim: self.width(), block_size, scale, window: None }
    }
}

/// The specification, for one row and head that sees `keys` tokens: [`attention::reference`](super::reference), but
/// that a score is summed up as the products of [`matmul`](super::super::matmul) are.
pub fn reference(out: &mut [f32], q: &[f32], row: impl Fn(usize, usize) -> f32, keys: usize, scale: f32) {
    let score = |p| {
        let mut lanes = [0.0f32; LANES];
        q.iter().enumerate().for_each(|(d, q)| lanes[d % LANES] = q.mul_add(row(p, d), lanes[d % LANES]));
        tree_sum(lanes) * scale
    };
    attend_reference(out, score, &row, 0..keys, None);
}

/// Writes rows of `latent`, `[rows, latent]`, and `rope`, `[rows, rope]`, into the cache, row i at `slots[i]`.
///
/// # Panics
/// If a length does not fit or a slot is not in the cache.
pub fn store(cache: &mut [f32], latent: &[f32], rope: &[f32], slots: &[u32], shape: &Shape) {
    assert_eq!(latent.len(), slots.len() * shape.latent, "latent is [rows, latent]");
    assert_eq!(rope.len(), slots.len() * shape.rope, "rope is [rows, rope]");
    for (row, &slot) in slots.iter().enumerate() {
        let place = &mut cache[slot as usize * shape.width()..][..shape.width()];
        let (to_latent, to_rope) = place.split_at_mut(shape.latent);
        to_latent.copy_from_slice(&latent[row * shape.latent..][..shape.latent]);
        to_rope.copy_from_slice(&rope[row * shape.rope..][..shape.rope]);
    }
}

/// Attention of every sequence's rows over its own cached tokens, as [`attention::paged`](super::paged).
///
/// `q` is `[rows, heads, latent + rope]`, `out` is `[rows, heads, latent]`.
///
/// # Panics
/// If a length does not fit, sequences' rows overlap or are out of order, or a block is not in the cache.
pub fn paged(
    pool: &Pool,
    out: &mut [f32],
    q: &[f32],
    cache: &[f32],
    sequences: &[Sequence<'_>],
    shape: &Shape,
) {
    let Shape { heads, latent, .. } = *shape;
    let row = heads * shape.width();
    assert!(row > 0 && q.len().is_multiple_of(row), "q is [rows, heads, latent + rope]");
    assert_eq!(out.len(), q.len() / row * heads * latent, "out is [rows, heads, latent]");
    let shape = &shape.grouped();
    check_sequences(q, cache, sequences, shape);
    let (out, layout) = (&Disjoint::new(out, latent), Layout::Rows { value_dim: latent });
    let (k_cache, v_cache, sinks, isa) = (cache, cache, None, pool.isa());
    attend(pool, &unit::Call { q, k_cache, v_cache, sinks, sequences, shape, layout, out, isa });
}
