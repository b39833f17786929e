//! Causal attention with grouped heads over a paged f32 KV cache; in [`latent`], over one of compressed rows.
//!
//! Cache layout, chosen so that sixteen keys of one dimension, and sixteen dimensions of one value, lie side by side:
//! - keys `[block, kv_head, head_dim, block_size]`,
//! - values `[block, kv_head, block_size, head_dim]`.
//!
//! A slot is `block · block_size + offset`. Caches start as zeros and are only written by [`kv_store`].

pub mod latent;
mod plan;
mod rows;
mod tile;
mod unit;

use std::ops::Range;

use super::disjoint::Disjoint;
use super::lanes::{self, LANES, tree_sum};
use super::pool::Pool;

pub(crate) use plan::Partials;

/// Keys whose scores get one maximum. Fixed, as it decides the order of additions; starts at multiples of itself.
const CHUNK: usize = 256;

/// Floats of keys below which storing them is not worth waking the other threads.
const MIN_SHARED: usize = 1 << 14;

/// Sizes of an attention layer and its cache.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Query heads; a multiple of `kv_heads`. Query head h reads KV head `h / (q_heads / kv_heads)`.
    pub q_heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Tokens per block; a multiple of 16.
    pub block_size: usize,
    /// Factor on q·k, usually 1 / √head_dim.
    pub scale: f32,
    /// How many tokens a token sees, itself counted, if not all before it.
    pub window: Option<usize>,
}

/// The rows of one sequence in a batch. Prefill (many rows) and decode (one row) mix in one call.
#[derive(Clone, Debug)]
pub struct Sequence<'a> {
    /// Its rows of `q` and `out`, at most `context` of them: the sequence's newest tokens, in order.
    pub rows: Range<usize>,
    /// Blocks of the sequence in order; covers at least `context` tokens.
    pub block_table: &'a [u32],
    /// Tokens in the cache, these rows' own counted.
    pub context: usize,
}

/// How keys and values lie in a block.
#[derive(Clone, Copy)]
enum Layout {
    /// Keys and values in caches of their own, as above.
    Apart,
    /// `[block_size, head_dim]` of a single KV head: a token's row is its key, the row's beginning its value.
    Rows { value_dim: usize },
}

impl Layout {
    fn value_dim(self, shape: &Shape) -> usize {
        match self {
            Layout::Apart => shape.head_dim,
            Layout::Rows { value_dim } => value_dim,
        }
    }
}

impl Shape {
    /// Floats per block of one cache (keys or values).
    pub fn block_len(&self) -> usize {
        self.kv_heads * self.block_size * self.head_dim
    }

    fn group(&self) -> usize {
        self.q_heads / self.kv_heads
    }

    fn check(&self) {
        assert!(self.kv_heads > 0 && self.q_heads.is_multiple_of(self.kv_heads), "kv_heads divide q_heads");
        assert!(
            self.block_size > 0 && self.block_size.is_multiple_of(LANES),
            "block_size is a multiple of {LANES}"
        );
        assert_ne!(self.window, Some(0), "a token sees itself");
    }
}

/// The specification, for one row and head that sees the tokens at `keys`: chunk after chunk of 256 keys, the scores of
/// a chunk are sums over dimensions in order, its softmax is that of [`logits`](super::logits) left unnormalised, its
/// values are added in order of keys; chunks are merged in order. A sink is a last chunk of that score and no value.
pub fn reference(
    out: &mut [f32],
    q: &[f32],
    key: impl Fn(usize, usize) -> f32,
    value: impl Fn(usize, usize) -> f32,
    keys: Range<usize>,
    scale: f32,
    sink: Option<f32>,
) {
    let score = |p| (0..q.len()).fold(0.0f32, |sum, d| q[d].mul_add(key(p, d), sum)) * scale;
    attend_reference(out, score, value, keys, sink);
}

/// What is the same whatever the order in which a score is summed up.
fn attend_reference(
    out: &mut [f32],
    score: impl Fn(usize) -> f32,
    value: impl Fn(usize, usize) -> f32,
    keys: Range<usize>,
    sink: Option<f32>,
) {
    let mut all = Running::new();
    out.fill(0.0);
    for start in (keys.start / CHUNK * CHUNK..keys.end).step_by(CHUNK) {
        let positions = keys.start.max(start)..keys.end.min(start + CHUNK);
        let scores: Vec<f32> = positions.clone().map(&score).collect();
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sums = [0.0; LANES];
        let weights: Vec<f32> = scores.iter().map(|s| lanes::exp(s - max)).collect();
        positions.clone().zip(&weights).for_each(|(p, w)| sums[p % LANES] += w);
        let (keep, take) = all.merge(max, tree_sum(sums));
        for (d, out) in out.iter_mut().enumerate() {
            let sum = positions.clone().zip(&weights).fold(0.0f32, |sum, (p, w)| w.mul_add(value(p, d), sum));
            *out = out.mul_add(keep, sum * take);
        }
    }
    all.finish(out, sink);
}

/// What is known of a row's softmax after some chunks.
#[derive(Clone, Copy)]
struct Running {
    max: f32,
    sum: f32,
}

impl Running {
    fn new() -> Running {
        Running { max: f32::NEG_INFINITY, sum: 0.0 }
    }

    /// Takes a chunk in; returns the factors of what was there and of what comes in.
    fn merge(&mut self, max: f32, sum: f32) -> (f32, f32) {
        let both = if self.max > max { self.max } else { max };
        let (keep, take) = (lanes::exp(self.max - both), lanes::exp(max - both));
        self.max = both;
        self.sum = self.sum.mul_add(keep, sum * take);
        (keep, take)
    }

    /// Divides what was summed up in `out`, after the sink has joined.
    fn finish(mut self, out: &mut [f32], sink: Option<f32>) {
        let keep = sink.map_or(1.0, |sink| self.merge(sink, 1.0).0);
        out.iter_mut().for_each(|out| *out = *out * keep / self.sum);
    }
}

/// Writes rows of `k` and `v`, `[rows, kv_heads, head_dim]`, into the caches, row i at `slots[i]`.
///
/// # Panics
/// If a length does not fit or a slot is not in the caches.
pub fn kv_store(
    pool: &Pool,
    k_cache: &mut [f32],
    v_cache: &mut [f32],
    k: &[f32],
    v: &[f32],
    slots: &[u32],
    shape: &Shape,
) {
    shape.check();
    let Shape { kv_heads, head_dim, block_size, .. } = *shape;
    let row_len = kv_heads * head_dim;
    assert_eq!(k.len(), slots.len() * row_len, "k is [rows, kv_heads, head_dim]");
    assert_eq!(v.len(), k.len(), "v is [rows, kv_heads, head_dim]");
    if row_len == 0 {
        return;
    }
    // A row of these is one head of one block; a task writes one head of every block.
    let heads_of_keys = Disjoint::new(k_cache, block_size * head_dim);
    let heads_of_values = Disjoint::new(v_cache, block_size * head_dim);
    let store = |head: usize| {
        for (row, &slot) in slots.iter().enumerate() {
            let (block, offset) = (slot as usize / block_size, slot as usize % block_size);
            let from = row * row_len + head * head_dim;
            // SAFETY: heads are apart, and each is one task's.
            let (keys, values) = unsafe {
                (heads_of_keys.row(block * kv_heads + head), heads_of_values.row(block * kv_heads + head))
            };
            values[offset * head_dim..][..head_dim].copy_from_slice(&v[from..][..head_dim]);
            let places = keys[offset..].iter_mut().step_by(block_size);
            places.zip(&k[from..][..head_dim]).for_each(|(place, x)| *place = *x);
        }
    };
    if k.len() < MIN_SHARED {
        (0..kv_heads).for_each(store);
    } else {
        pool.tasks(kv_heads, store);
    }
}

/// Attention of every sequence's rows over its own cached tokens.
///
/// `out` and `q` are `[rows, q_heads, head_dim]`; `caches` are keys and values. Row r of a sequence (counted within it)
/// attends to positions up to `context - rows.len() + r`, the last `window` of them if there is one. `sinks`, one a query
/// head, join the denominator of its softmax as the score of a token without value. Sequences come in the order of
/// their rows; rows of `out` that belong to none are left as they are.
///
/// # Panics
/// If a length does not fit, sequences' rows overlap or are out of order, or a block is not in the caches.
pub fn paged(
    pool: &Pool,
    out: &mut [f32],
    q: &[f32],
    caches: [&[f32]; 2],
    sinks: Option<&[f32]>,
    sequences: &[Sequence<'_>],
    shape: &Shape,
) {
    let [k_cache, v_cache] = caches;
    check(out, q, caches, sinks, sequences, shape);
    let (out, layout, isa) = (&Disjoint::new(out, shape.head_dim), Layout::Apart, pool.isa());
    attend(pool, &unit::Call { q, k_cache, v_cache, sinks, sequences, shape, layout, out, isa });
}

/// Attention of any layout; lengths are checked.
fn attend(pool: &Pool, call: &unit::Call<'_>) {
    let mut scratch = pool.scratch();
    let partials = &mut scratch.partials;
    partials.plan(call.sequences, call.shape, call.layout, pool.threads());
    let (units, pieces) = (&partials.units, &partials.pieces);
    if pieces.is_empty() {
        // Later units of a prefill see more keys: start with them.
        pool.tasks(units.len(), |task| call.whole(&units[units.len() - 1 - task]));
        return;
    }
    let partials = Disjoint::new(&mut partials.floats, partials.floats_per_piece);
    // SAFETY: every piece has its own partial result.
    pool.tasks(pieces.len(), |task| unsafe {
        let piece = &pieces[task];
        call.chunk(&units[piece.unit], piece.chunk, partials.row(task));
    });
    // SAFETY: every unit reads the partial results of its own pieces.
    pool.tasks(units.len(), |task| unsafe {
        let unit = &units[task];
        call.merge(unit, (0..unit.chunks.len()).map(|piece| &*partials.row(unit.first_piece + piece)));
    });
}

fn check(
    out: &[f32],
    q: &[f32],
    [k_cache, v_cache]: [&[f32]; 2],
    sinks: Option<&[f32]>,
    sequences: &[Sequence<'_>],
    shape: &Shape,
) {
    assert!(sinks.is_none_or(|sinks| sinks.len() == shape.q_heads), "sinks are [q_heads]");
    assert_eq!(out.len(), q.len(), "out and q are [rows, q_heads, head_dim]");
    assert_eq!(k_cache.len(), v_cache.len(), "both caches are [block, …]");
    check_sequences(q, k_cache, sequences, shape);
}

fn check_sequences(q: &[f32], cache: &[f32], sequences: &[Sequence<'_>], shape: &Shape) {
    shape.check();
    let (row_len, blocks) = (shape.q_heads * shape.head_dim, cache.len() / shape.block_len().max(1));
    let mut end = 0;
    for sequence in sequences {
        let Sequence { rows, block_table, context } = sequence;
        assert!(end <= rows.start && rows.start <= rows.end, "sequences' rows are in order and apart");
        end = rows.end;
        assert!(rows.end * row_len <= q.len(), "a sequence's rows are within q");
        assert!(rows.len() <= *context, "context counts the rows");
        let used = context.div_ceil(shape.block_size);
        assert!(used <= block_table.len(), "the block table covers the context");
        let known = block_table[..used].iter().all(|block| (*block as usize) < blocks);
        assert!(known, "blocks are within the cache");
    }
}
