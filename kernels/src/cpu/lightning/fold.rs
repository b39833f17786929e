//! A full block joins the state.

use super::super::lanes::{Kernel, LANES, Lanes};
use super::BLOCK;
use super::rows::{read, write};

/// `to = e^(-s·BLOCK) · S + Σ_j e^(-s(BLOCK - 1 - j)) k_jᵀ v_j`.
pub(super) struct Fold<'a> {
    pub(super) sums: *const f32,
    pub(super) to: *mut f32,
    pub(super) keys: *const f32,
    pub(super) values: *const f32,
    pub(super) decay: &'a [f32; BLOCK + 1],
    pub(super) head_dim: usize,
}

impl Kernel for Fold<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: the caller's.
        unsafe {
            let mut reversed = [0.0; BLOCK];
            for j in 0..BLOCK {
                reversed[j] = self.decay[BLOCK - 1 - j];
            }
            let decay = L::load(reversed.as_ptr());
            for i in (0..self.head_dim).step_by(4) {
                match self.head_dim - i {
                    1 => self.strip::<L, 1>(i, decay),
                    2 => self.strip::<L, 2>(i, decay),
                    3 => self.strip::<L, 3>(i, decay),
                    _ => self.strip::<L, 4>(i, decay),
                }
            }
        }
    }
}

impl Fold<'_> {
    /// `M` rows of S.
    #[inline(always)]
    unsafe fn strip<L: Lanes, const M: usize>(&self, i: usize, decay: L) {
        // SAFETY: the caller's.
        unsafe {
            let mut keys = [[0.0; BLOCK]; M];
            for r in 0..M {
                L::load(self.keys.add((i + r) * BLOCK)).mul(decay).store(keys[r].as_mut_ptr());
            }
            let mut c = 0;
            while L::MANY_REGISTERS && c + 4 * LANES <= self.head_dim {
                self.columns::<L, M, 4>(i, &keys, c, LANES);
                c += 4 * LANES;
            }
            while c < self.head_dim {
                self.columns::<L, M, 1>(i, &keys, c, LANES.min(self.head_dim - c));
                c += LANES;
            }
        }
    }

    /// `N` sixteens of columns of `M` rows, the last sixteen of `last` columns.
    #[inline(always)]
    unsafe fn columns<L: Lanes, const M: usize, const N: usize>(
        &self,
        i: usize,
        keys: &[[f32; BLOCK]; M],
        c: usize,
        last: usize,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let d = self.head_dim;
            let decay = L::splat(self.decay[BLOCK]);
            let mut sums = [[L::splat(0.0); N]; M];
            for r in 0..M {
                let before: [L; N] = read(self.sums.add((i + r) * d + c), last);
                for n in 0..N {
                    sums[r][n] = before[n].mul(decay);
                }
            }
            for j in 0..BLOCK {
                let values: [L; N] = read(self.values.add(j * d + c), last);
                for r in 0..M {
                    let key = L::splat(keys[r][j]);
                    for n in 0..N {
                        sums[r][n] = key.mul_add(values[n], sums[r][n]);
                    }
                }
            }
            for r in 0..M {
                write(&sums[r], self.to.add((i + r) * d + c), last);
            }
        }
    }
}
