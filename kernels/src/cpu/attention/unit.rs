//! A unit of work: some (row, head) pairs that share a KV head, over all chunks of keys or one.

use std::ops::Range;

use super::super::disjoint::Disjoint;
use super::super::isa::Isa;
use super::super::lanes::{Kernel, LANES, Lanes, on};
use super::super::scratch;
use super::plan::Unit;
use super::tile::Tile;
use super::{CHUNK, Layout, Running, Sequence, Shape};

/// Most pairs of a unit: enough that keys and values, which come from the L3 cache or memory, are not waited for.
pub(super) const PAIRS: usize = 48;

/// Positions of the keys that pair `pair` of a sequence sees; neither end comes earlier for a later pair.
pub(super) fn keys(sequence: &Sequence<'_>, shape: &Shape, pair: usize) -> Range<usize> {
    let end = sequence.context - sequence.rows.len() + pair / shape.group() + 1;
    shape.window.map_or(0, |window| end.saturating_sub(window))..end
}

/// Floats of a chunk's result: values `[pairs, value_dim]`, maxima, sums.
pub(super) fn partial_floats(pairs: usize, value_dim: usize) -> usize {
    pairs * (value_dim + 2)
}

/// The arguments of one call, checked.
pub(super) struct Call<'a> {
    pub(super) q: &'a [f32],
    pub(super) k_cache: &'a [f32],
    pub(super) v_cache: &'a [f32],
    pub(super) sinks: Option<&'a [f32]>,
    pub(super) sequences: &'a [Sequence<'a>],
    pub(super) shape: &'a Shape,
    pub(super) layout: Layout,
    /// Rows of `value_dim`: one per (row, query head).
    pub(super) out: &'a Disjoint<'a, f32>,
    pub(super) isa: Isa,
}

impl Call<'_> {
    /// All chunks of a unit, merged as they come.
    pub(super) fn whole(&self, unit: &Unit) {
        let floats = partial_floats(unit.pairs, self.value_dim());
        scratch::with(floats + unit.pairs * CHUNK, |floats_and_scores| {
            let (partial, scores) = floats_and_scores.split_at_mut(floats);
            let mut running = [Running::new(); PAIRS];
            for chunk in unit.chunks.clone() {
                self.compute(unit, chunk, partial, scores);
                self.take(unit, chunk, partial, &mut running);
            }
            self.finish(unit, &running);
        });
    }

    /// One chunk of a unit, into `partial`.
    pub(super) fn chunk(&self, unit: &Unit, chunk: usize, partial: &mut [f32]) {
        scratch::with(unit.pairs * CHUNK, |scores| self.compute(unit, chunk, partial, scores));
    }

    /// Merges a unit's chunks, given in order.
    pub(super) fn merge<'p>(&self, unit: &Unit, partials: impl Iterator<Item = &'p [f32]>) {
        let mut running = [Running::new(); PAIRS];
        for (chunk, partial) in unit.chunks.clone().zip(partials) {
            self.take(unit, chunk, partial, &mut running);
        }
        self.finish(unit, &running);
    }

    fn value_dim(&self) -> usize {
        self.layout.value_dim(self.shape)
    }

    /// Keys of `chunk` that a pair sees, counted from the chunk's first.
    fn seen(&self, unit: &Unit, chunk: usize, pair: usize) -> Range<usize> {
        let keys = keys(&self.sequences[unit.sequence], self.shape, unit.first_pair + pair);
        let within = |position: usize| position.saturating_sub(chunk * CHUNK).min(CHUNK);
        within(keys.start)..within(keys.end)
    }

    /// Index of a pair's row in `q` and `out`.
    fn row(&self, unit: &Unit, pair: usize) -> usize {
        let (pair, group) = (unit.first_pair + pair, self.shape.group());
        let row = self.sequences[unit.sequence].rows.start + pair / group;
        row * self.shape.q_heads + unit.kv_head * group + pair % group
    }

    fn compute(&self, unit: &Unit, chunk: usize, partial: &mut [f32], scores: &mut [f32]) {
        let Shape { kv_heads, head_dim, block_size, scale, .. } = *self.shape;
        let (mut first, mut seen) = ([0; PAIRS], [0; PAIRS]);
        let mut q = [self.q.as_ptr(); PAIRS];
        for pair in 0..unit.pairs {
            Range { start: first[pair], end: seen[pair] } = self.seen(unit, chunk, pair);
            q[pair] = self.q[self.row(unit, pair) * head_dim..][..head_dim].as_ptr();
        }
        let value_dim = self.value_dim();
        let (values, rest) = partial.split_at_mut(unit.pairs * value_dim);
        let (maxima, sums) = rest.split_at_mut(unit.pairs);
        let tile = Tile {
            q: &q[..unit.pairs],
            first: &first[..unit.pairs],
            seen: &seen[..unit.pairs],
            blocks: self.sequences[unit.sequence].block_table,
            start: chunk * CHUNK,
            k_head: self.k_cache[unit.kv_head * block_size * head_dim..].as_ptr(),
            v_head: self.v_cache[unit.kv_head * block_size * head_dim..].as_ptr(),
            block_len: kv_heads * block_size * head_dim,
            block_size,
            layout: self.layout,
            key_dim: head_dim,
            value_dim,
            scale,
            maxima,
            sums,
            values: values.as_mut_ptr(),
            scores: scores.as_mut_ptr(),
        };
        // SAFETY: pools exist only for instruction sets that the CPU has; blocks of the context are within the
        // caches, and every block holds whole sixteens of keys.
        unsafe { on(self.isa, tile) }
    }

    /// Merges a chunk's result into the unit's rows of `out`.
    fn take(&self, unit: &Unit, chunk: usize, partial: &[f32], running: &mut [Running; PAIRS]) {
        let value_dim = self.value_dim();
        let mut outs = [std::ptr::null_mut(); PAIRS];
        for pair in 0..unit.pairs {
            // SAFETY: a unit's rows of `out` are its own, and one thread works on it.
            let out = unsafe { self.out.row(self.row(unit, pair)) };
            if chunk == unit.chunks.start {
                out.fill(0.0);
            }
            if !self.seen(unit, chunk, pair).is_empty() {
                outs[pair] = out.as_mut_ptr();
            }
        }
        let (values, rest) = partial.split_at(unit.pairs * value_dim);
        let (maxima, sums) = rest.split_at(unit.pairs);
        let merge =
            Merge { outs: &outs[..unit.pairs], values: values.as_ptr(), maxima, sums, running, value_dim };
        // SAFETY: pools exist only for instruction sets that the CPU has; rows of `out` and values are `value_dim` long.
        unsafe { on(self.isa, merge) }
    }

    fn finish(&self, unit: &Unit, running: &[Running; PAIRS]) {
        for (pair, running) in running.iter().enumerate().take(unit.pairs) {
            // SAFETY: a unit's rows of `out` are its own, and one thread works on it.
            let out = unsafe { self.out.row(self.row(unit, pair)) };
            let head = unit.kv_head * self.shape.group() + (unit.first_pair + pair) % self.shape.group();
            running.finish(out, self.sinks.map(|sinks| sinks[head]));
        }
    }
}

/// [`Running::merge`] of every pair, and `out = out · keep + values · take`.
struct Merge<'a> {
    /// Per pair, null if it saw nothing of the chunk.
    outs: &'a [*mut f32],
    /// `[pairs, value_dim]`
    values: *const f32,
    maxima: &'a [f32],
    sums: &'a [f32],
    running: &'a mut [Running; PAIRS],
    value_dim: usize,
}

impl Kernel for Merge<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let length = self.value_dim;
        let whole = length - length % LANES;
        for (pair, &out) in self.outs.iter().enumerate() {
            if out.is_null() {
                continue;
            }
            // SAFETY: `out` and a pair's values hold `length` values.
            unsafe {
                let running = &mut self.running[pair];
                let max = if running.max > self.maxima[pair] { running.max } else { self.maxima[pair] };
                let mut factors = [0.0; LANES];
                (factors[0], factors[1]) = (running.max - max, self.maxima[pair] - max);
                L::load(factors.as_ptr()).exp().store(factors.as_mut_ptr());
                let (keep, take) = (L::splat(factors[0]), L::splat(factors[1]));
                let sum = L::splat(running.sum).mul_add(keep, L::splat(self.sums[pair]).mul(take));
                sum.store_part(&mut running.sum, 1);
                running.max = max;
                let values = self.values.add(pair * length);
                for i in (0..whole).step_by(LANES) {
                    L::load(out.add(i)).mul_add(keep, L::load(values.add(i)).mul(take)).store(out.add(i));
                }
                if whole < length {
                    let n = length - whole;
                    let added = L::load_part(values.add(whole), n).mul(take);
                    L::load_part(out.add(whole), n).mul_add(keep, added).store_part(out.add(whole), n);
                }
            }
        }
    }
}
