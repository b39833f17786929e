//! What some rows of one block find in the state and in their block.

use super::super::lanes::{Kernel, LANES, Lanes};
use super::BLOCK;

/// Some rows of one block.
pub(super) struct Rows<'a> {
    pub(super) q: &'a [*const f32],
    pub(super) outs: &'a [*mut f32],
    /// Of the first row in the block.
    pub(super) offset: usize,
    /// `[head_dim, head_dim]`
    pub(super) sums: *const f32,
    /// `[head_dim, BLOCK]`, written up to the last row.
    pub(super) keys: *const f32,
    /// `[BLOCK, head_dim]`, written up to the last row.
    pub(super) values: *const f32,
    pub(super) decay: &'a [f32; BLOCK + 1],
    pub(super) head_dim: usize,
}

impl Kernel for Rows<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: the caller's.
        unsafe {
            for row in (0..self.q.len()).step_by(4) {
                match self.q.len() - row {
                    1 => self.strip::<L, 1>(row),
                    2 => self.strip::<L, 2>(row),
                    3 => self.strip::<L, 3>(row),
                    _ => self.strip::<L, 4>(row),
                }
            }
        }
    }
}

impl Rows<'_> {
    /// `M` rows.
    #[inline(always)]
    unsafe fn strip<L: Lanes, const M: usize>(&self, row: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut q = [self.q[0]; M];
            q.copy_from_slice(&self.q[row..row + M]);
            // Lane j is key j; those behind a row are computed and not used.
            let mut scores = [L::splat(0.0); M];
            for i in 0..self.head_dim {
                let keys = L::load(self.keys.add(i * BLOCK));
                for r in 0..M {
                    scores[r] = L::splat(*q[r].add(i)).mul_add(keys, scores[r]);
                }
            }
            let mut weights = [[0.0; BLOCK]; M];
            for r in 0..M {
                scores[r].store(weights[r].as_mut_ptr());
                let offset = self.offset + row + r;
                for j in 0..=offset {
                    weights[r][j] *= self.decay[offset - j];
                }
            }
            let mut c = 0;
            while L::MANY_REGISTERS && c + 4 * LANES <= self.head_dim {
                self.columns::<L, M, 4>(row, &q, &weights, c, LANES);
                c += 4 * LANES;
            }
            while c < self.head_dim {
                self.columns::<L, M, 1>(row, &q, &weights, c, LANES.min(self.head_dim - c));
                c += LANES;
            }
        }
    }

    /// `N` sixteens of columns of `M` rows, the last sixteen of `last` columns.
    #[inline(always)]
    unsafe fn columns<L: Lanes, const M: usize, const N: usize>(
        &self,
        row: usize,
        q: &[*const f32; M],
        weights: &[[f32; BLOCK]; M],
        c: usize,
        last: usize,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let d = self.head_dim;
            let mut out = [[L::splat(0.0); N]; M];
            for i in 0..d {
                let sums: [L; N] = read(self.sums.add(i * d + c), last);
                for r in 0..M {
                    let q = L::splat(*q[r].add(i));
                    for n in 0..N {
                        out[r][n] = q.mul_add(sums[n], out[r][n]);
                    }
                }
            }
            let offset = self.offset + row;
            for r in 0..M {
                let decay = L::splat(self.decay[offset + r + 1]);
                for n in 0..N {
                    out[r][n] = out[r][n].mul(decay);
                }
            }
            // All rows see their block up to the first of them, then each up to itself.
            for j in 0..=offset {
                let values: [L; N] = read(self.values.add(j * d + c), last);
                for r in 0..M {
                    let weight = L::splat(weights[r][j]);
                    for n in 0..N {
                        out[r][n] = weight.mul_add(values[n], out[r][n]);
                    }
                }
            }
            for r in 1..M {
                for j in offset + 1..=offset + r {
                    let values: [L; N] = read(self.values.add(j * d + c), last);
                    let weight = L::splat(weights[r][j]);
                    for n in 0..N {
                        out[r][n] = weight.mul_add(values[n], out[r][n]);
                    }
                }
            }
            for r in 0..M {
                write(&out[r], self.outs[row + r].add(c), last);
            }
        }
    }
}

/// `N` sixteens, the last of `last` lanes; a part only where there is but one.
#[inline(always)]
pub(super) unsafe fn read<L: Lanes, const N: usize>(from: *const f32, last: usize) -> [L; N] {
    // SAFETY: the caller's.
    unsafe {
        let mut lanes = [L::splat(0.0); N];
        if last < LANES {
            lanes[N - 1] = L::load_part(from, last);
        } else {
            for n in 0..N {
                lanes[n] = L::load(from.add(n * LANES));
            }
        }
        lanes
    }
}

#[inline(always)]
pub(super) unsafe fn write<L: Lanes, const N: usize>(lanes: &[L; N], to: *mut f32, last: usize) {
    // SAFETY: the caller's.
    unsafe {
        if last < LANES {
            lanes[N - 1].store_part(to, last);
        } else {
            for n in 0..N {
                lanes[n].store(to.add(n * LANES));
            }
        }
    }
}
