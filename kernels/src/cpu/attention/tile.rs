//! The inner loops: (row, head) pairs that share a KV head, against one chunk of keys.

use super::super::lanes::{Kernel, LANES, Lanes};
use super::{CHUNK, Layout};

/// Keys that stay in the L1 cache while all pairs go over them; of values, as many as 32 KiB hold.
const STRETCH: usize = 64;
const STRETCH_FLOATS: usize = 8 << 10;

/// The arguments for one unit and chunk.
pub(super) struct Tile<'a> {
    /// Per pair.
    pub(super) q: &'a [*const f32],
    /// Keys of the chunk that each pair does not see any more, never fewer for a later pair.
    pub(super) first: &'a [usize],
    /// End of the keys of the chunk that each pair sees, never earlier for a later pair.
    pub(super) seen: &'a [usize],
    pub(super) blocks: &'a [u32],
    /// Position of the chunk's first key.
    pub(super) start: usize,
    /// The KV head in block 0.
    pub(super) k_head: *const f32,
    pub(super) v_head: *const f32,
    pub(super) block_len: usize,
    pub(super) block_size: usize,
    pub(super) layout: Layout,
    pub(super) key_dim: usize,
    pub(super) value_dim: usize,
    pub(super) scale: f32,
    pub(super) maxima: &'a mut [f32],
    pub(super) sums: &'a mut [f32],
    /// `[pairs, value_dim]`
    pub(super) values: *mut f32,
    /// `[pairs, CHUNK]`
    pub(super) scores: *mut f32,
}

impl Kernel for Tile<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(mut self) {
        // SAFETY: the caller's.
        unsafe {
            let pairs = self.q.len();
            let (start, keys) = (self.first[0] / STRETCH * STRETCH, self.seen[pairs - 1]);
            // No closures here: they would not inherit the instruction set.
            match self.layout {
                Layout::Apart => self.score_all::<L>(start, keys),
                Layout::Rows { .. } => self.score_rows::<L>(start, keys),
            }
            for pair in 0..pairs {
                self.soften::<L>(pair);
            }
            std::ptr::write_bytes(self.values, 0, pairs * self.value_dim);
            for key in (start..keys).step_by(self.value_stretch()) {
                for pair in (0..pairs).step_by(4) {
                    match pairs - pair {
                        1 => self.value_strip::<L, 1>(pair, key),
                        2 => self.value_strip::<L, 2>(pair, key),
                        3 => self.value_strip::<L, 3>(pair, key),
                        _ => self.value_strip::<L, 4>(pair, key),
                    }
                }
            }
        }
    }
}

impl Tile<'_> {
    /// Offset in the caches of the KV head's block 0 that a key's block is at, and the key's place in it.
    #[inline(always)]
    pub(super) fn block(&self, key: usize) -> (usize, usize) {
        let position = self.start + key;
        (self.blocks[position / self.block_size] as usize * self.block_len, position % self.block_size)
    }

    /// Keys whose values stay in the L1 cache while all pairs go over them.
    #[inline(always)]
    fn value_stretch(&self) -> usize {
        (STRETCH_FLOATS / self.value_dim).clamp(LANES, STRETCH)
    }

    /// Scores of all pairs for keys `start..keys`.
    #[inline(always)]
    unsafe fn score_all<L: Lanes>(&self, start: usize, keys: usize) {
        // SAFETY: the caller's.
        unsafe {
            let pairs = self.q.len();
            for key in (start..keys).step_by(STRETCH) {
                for pair in (0..pairs).step_by(4) {
                    match pairs - pair {
                        1 => self.score_strip::<L, 1>(pair, key, keys),
                        2 => self.score_strip::<L, 2>(pair, key, keys),
                        3 => self.score_strip::<L, 3>(pair, key, keys),
                        _ => self.score_strip::<L, 4>(pair, key, keys),
                    }
                }
            }
        }
    }

    /// Scores of `M` pairs for the stretch at `key`, in sixteens of keys.
    #[inline(always)]
    unsafe fn score_strip<L: Lanes, const M: usize>(&self, pair: usize, key: usize, keys: usize) {
        // SAFETY: the caller's.
        unsafe {
            let keys = keys.min(key + STRETCH).min(self.seen[pair + M - 1].next_multiple_of(LANES));
            let mut key = key;
            while L::MANY_REGISTERS && key + 3 * LANES < keys {
                self.score::<L, M, 4>(pair, key);
                key += 4 * LANES;
            }
            while key < keys {
                self.score::<L, M, 1>(pair, key);
                key += LANES;
            }
        }
    }

    /// `M` pairs times `N` sixteens of keys.
    #[inline(always)]
    unsafe fn score<L: Lanes, const M: usize, const N: usize>(&self, pair: usize, key: usize) {
        // SAFETY: the caller's; sixteen keys at a multiple of sixteen lie within one block.
        unsafe {
            let mut k = [self.k_head; N];
            for c in 0..N {
                let (block, offset) = self.block(key + c * LANES);
                k[c] = self.k_head.add(block + offset);
            }
            let mut q = [self.q[0]; M];
            q.copy_from_slice(&self.q[pair..pair + M]);
            let mut sums = [[L::splat(0.0); N]; M];
            for d in 0..self.key_dim {
                let mut ks = [L::splat(0.0); N];
                for c in 0..N {
                    ks[c] = L::load(k[c].add(d * self.block_size));
                }
                for r in 0..M {
                    let q = L::splat(*q[r].add(d));
                    for c in 0..N {
                        sums[r][c] = q.mul_add(ks[c], sums[r][c]);
                    }
                }
            }
            for r in 0..M {
                for c in 0..N {
                    let to = self.scores.add((pair + r) * CHUNK + key + c * LANES);
                    sums[r][c].mul(L::splat(self.scale)).store(to);
                }
            }
        }
    }

    /// Turns a pair's scores into unnormalised weights.
    #[inline(always)]
    unsafe fn soften<L: Lanes>(&mut self, pair: usize) {
        // SAFETY: the caller's.
        unsafe {
            let seen = self.seen[pair];
            let scores = self.scores.add(pair * CHUNK);
            let whole = seen - seen % LANES;
            for i in 0..self.first[pair] {
                *scores.add(i) = f32::NEG_INFINITY;
            }
            for i in seen..seen.next_multiple_of(LANES) {
                *scores.add(i) = f32::NEG_INFINITY; // weight 0
            }
            let mut max = L::splat(f32::NEG_INFINITY);
            let end = if whole < seen { whole + LANES } else { whole };
            for i in (0..end).step_by(LANES) {
                max = L::load(scores.add(i)).max(max);
            }
            let max = max.max_lane();
            let mut sum = L::splat(0.0);
            for i in (0..end).step_by(LANES) {
                let weight = L::load(scores.add(i)).sub(L::splat(max)).exp();
                weight.store(scores.add(i));
                sum = sum.add(weight);
            }
            self.maxima[pair] = max;
            self.sums[pair] = sum.sum();
        }
    }

    /// Adds the values of the stretch at `key` for `M` pairs: together up to what the first of them sees, then one by one.
    #[inline(always)]
    unsafe fn value_strip<L: Lanes, const M: usize>(&self, pair: usize, key: usize) {
        // SAFETY: the caller's.
        unsafe {
            let end = (key + self.value_stretch()).min(self.seen[pair]);
            self.add_values::<L, M>(pair, key, end);
            for pair in pair + 1..pair + M {
                self.add_values::<L, 1>(
                    pair,
                    key.max(end),
                    (key + self.value_stretch()).min(self.seen[pair]),
                );
            }
        }
    }

    /// Adds weight · value of keys `key..end` for `M` pairs.
    #[inline(always)]
    unsafe fn add_values<L: Lanes, const M: usize>(&self, pair: usize, key: usize, end: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut d = 0;
            while L::MANY_REGISTERS && d + 4 * LANES <= self.value_dim {
                self.add_slice::<L, M, 4>(pair, key, end, d, LANES);
                d += 4 * LANES;
            }
            while d < self.value_dim {
                self.add_slice::<L, M, 1>(pair, key, end, d, LANES.min(self.value_dim - d));
                d += LANES;
            }
        }
    }

    /// [`Tile::add_values`] for `N` sixteens of dimensions, the last of `last` dimensions.
    #[inline(always)]
    unsafe fn add_slice<L: Lanes, const M: usize, const N: usize>(
        &self,
        pair: usize,
        key: usize,
        end: usize,
        d: usize,
        last: usize,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let values = self.values.add(pair * self.value_dim + d);
            // To the value of the next key: a value of its own is as wide as a key, one that is part of a row, too.
            let stride = self.key_dim;
            let mut sums = [[L::splat(0.0); N]; M];
            for r in 0..M {
                for c in 0..N {
                    sums[r][c] = read(values.add(r * self.value_dim + c * LANES), last);
                }
            }
            let mut key = key;
            while key < end {
                let (block, offset) = self.block(key);
                let count = (self.block_size - offset).min(end - key);
                let v = self.v_head.add(block + offset * stride + d);
                for i in 0..count {
                    let mut vs = [L::splat(0.0); N];
                    for c in 0..N {
                        vs[c] = read(v.add(i * stride + c * LANES), last);
                    }
                    for r in 0..M {
                        let weight = L::splat(*self.scores.add((pair + r) * CHUNK + key + i));
                        for c in 0..N {
                            sums[r][c] = weight.mul_add(vs[c], sums[r][c]);
                        }
                    }
                }
                key += count;
            }
            for r in 0..M {
                for c in 0..N {
                    let to = values.add(r * self.value_dim + c * LANES);
                    if last < LANES {
                        sums[r][c].store_part(to, last);
                    } else {
                        sums[r][c].store(to);
                    }
                }
            }
        }
    }
}

/// The first `n <= 16` lanes.
#[inline(always)]
unsafe fn read<L: Lanes>(from: *const f32, n: usize) -> L {
    // SAFETY: the caller's.
    unsafe { if n < LANES { L::load_part(from, n) } else { L::load(from) } }
}
