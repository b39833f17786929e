//! The innermost loop of products with weights that widen to f32: a few rows times eight columns, sixteen lanes along k.

use super::super::lanes::{Element, LANES, Lanes, prefetch};

/// Columns of a panel.
pub(crate) const PANEL: usize = 8;
/// Rows of a tile.
pub(crate) const STRIP: usize = 3;

/// Values to the next column, and to the next sixteen values along k.
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    pub(crate) column: usize,
    pub(crate) step: usize,
}

/// Weights that a tile asks for while it computes, so that memory is never idle: sixteen values of some columns a
/// step, from these on. Asking for many at once would hold up the tile's own loads.
#[derive(Clone, Copy)]
pub(crate) struct Next<W> {
    pub(crate) from: *const W,
    pub(crate) column: usize,
}

/// A tile of eight columns, in pieces that fit the registers.
#[inline(always)]
pub(crate) unsafe fn tile8<L: Lanes, W: Element, A: Copy, const M: usize, const ASKED: usize>(
    x: *const f32,
    x_stride: usize,
    w: *const W,
    walk: Walk,
    next: Next<A>,
    k: usize,
    mut sums: [[L; PANEL]; M],
) -> [[L; PANEL]; M] {
    // SAFETY: the caller's.
    unsafe {
        if L::MANY_REGISTERS {
            return tile::<L, W, A, M, PANEL, ASKED>(x, x_stride, w, walk, next, k, sums);
        }
        for c in (0..PANEL).step_by(2) {
            let mut pair = [[L::splat(0.0); 2]; M];
            for r in 0..M {
                pair[r] = [sums[r][c], sums[r][c + 1]];
            }
            let w = w.add(c * walk.column);
            let pair = tile::<L, W, A, M, 2, 0>(x, x_stride, w, walk, next, k, pair);
            for r in 0..M {
                [sums[r][c], sums[r][c + 1]] = pair[r];
            }
        }
        sums
    }
}

/// Adds the products of `M` rows and `N` columns along k to their sums.
#[inline(always)]
pub(crate) unsafe fn tile<
    L: Lanes,
    W: Element,
    A: Copy,
    const M: usize,
    const N: usize,
    const ASKED: usize,
>(
    x: *const f32,
    x_stride: usize,
    w: *const W,
    walk: Walk,
    next: Next<A>,
    k: usize,
    mut sums: [[L; N]; M],
) -> [[L; N]; M] {
    // SAFETY: the caller's; what is asked for need not exist.
    unsafe {
        let whole = k - k % LANES;
        let mut i = 0;
        while i < whole {
            let mut xs = [L::splat(0.0); M];
            for r in 0..M {
                xs[r] = L::load(x.add(r * x_stride + i));
            }
            for c in 0..ASKED {
                prefetch(next.from.wrapping_add(c * next.column + i));
            }
            for c in 0..N {
                let w: L = W::load(w.add(c * walk.column + i / LANES * walk.step));
                for r in 0..M {
                    sums[r][c] = xs[r].mul_add(w, sums[r][c]);
                }
            }
            i += LANES;
        }
        if whole < k {
            let last = w.add(whole / LANES * walk.step);
            for c in 0..N {
                let w: L = W::load_part(last.add(c * walk.column), k - whole);
                for r in 0..M {
                    let x = L::load_part(x.add(r * x_stride + whole), k - whole);
                    sums[r][c] = x.mul_add(w, sums[r][c]);
                }
            }
        }
        sums
    }
}
