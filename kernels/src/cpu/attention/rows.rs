//! Scores where a token's key lies in one piece: the products of [`matmul`](super::super::matmul), eight keys at a time.

use super::super::lanes::{LANES, Lanes};
use super::super::matmul::tile::{Next, PANEL, STRIP, Walk, tile8};
use super::CHUNK;
use super::tile::Tile;

impl Tile<'_> {
    /// Scores of all pairs for keys `start..keys`, and for those behind that fill up the last eight.
    #[inline(always)]
    pub(super) unsafe fn score_rows<L: Lanes>(&self, start: usize, keys: usize) {
        // SAFETY: the caller's; eight keys at a multiple of eight lie within one block.
        unsafe {
            for key in (start..keys).step_by(PANEL) {
                for pair in (0..self.q.len()).step_by(STRIP) {
                    let strip = STRIP.min(self.q.len() - pair);
                    if self.seen[pair + strip - 1] <= key {
                        continue;
                    }
                    match strip {
                        1 => self.score_panel::<L, 1>(pair, key),
                        2 => self.score_panel::<L, 2>(pair, key),
                        _ => self.score_panel::<L, STRIP>(pair, key),
                    }
                }
            }
        }
    }

    /// `M` pairs times eight keys.
    #[inline(always)]
    unsafe fn score_panel<L: Lanes, const M: usize>(&self, pair: usize, key: usize) {
        // SAFETY: the caller's. Pairs of the only KV head lie one behind the other.
        unsafe {
            let (block, offset) = self.block(key);
            let keys = self.k_head.add(block + offset * self.key_dim);
            let walk = Walk { column: self.key_dim, step: LANES };
            let next = Next { from: keys, column: 0 };
            let zeros = [[L::splat(0.0); PANEL]; M];
            let (q, width) = (self.q[pair], self.key_dim);
            let sums = tile8::<L, f32, f32, M, 0>(q, width, keys, walk, next, width, zeros);
            for (r, sums) in sums.into_iter().enumerate() {
                let to = self.scores.add((pair + r) * CHUNK + key);
                L::store_sums8(sums, to);
                for c in 0..PANEL {
                    *to.add(c) *= self.scale;
                }
            }
        }
    }
}
