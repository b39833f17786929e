//! Root mean square norm.

use super::disjoint::chunk_of_rows;
use super::isa::Isa;
use super::lanes::{Kernel, LANES, Lanes, on, tree_sum};
use super::pool::Pool;

/// The specification: squares are added as in a [dense product](super::matmul::reference) of the row with itself.
pub fn reference(out: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let dim = weight.len();
    for (out, x) in out.chunks_exact_mut(dim).zip(x.chunks_exact(dim)) {
        let mut lanes = [0.0f32; LANES];
        for (i, x) in x.iter().enumerate() {
            lanes[i % LANES] = x.mul_add(*x, lanes[i % LANES]);
        }
        let factor = 1.0 / (tree_sum(lanes) / dim as f32 + eps).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * factor * weight;
        }
    }
}

/// `out = x / √(mean(x²) + eps) · weight`, per row of `dim` values.
///
/// # Panics
/// If `out` and `x` are not equally many whole rows, or `weight` is not one.
pub fn rms_norm(pool: &Pool, out: &mut [f32], x: &[f32], weight: &[f32], eps: f32, dim: usize) {
    assert_eq!(weight.len(), dim, "weight is [dim]");
    assert_eq!(out.len(), x.len(), "out and x are [rows, dim]");
    assert!(dim > 0 && x.len().is_multiple_of(dim), "x is [rows, dim]");
    let length = chunk_of_rows(dim);
    let isa = pool.isa();
    pool.chunks(out, length, |index, out| rows(isa, out, &x[index * length..], weight, eps));
}

fn rows(isa: Isa, out: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    // SAFETY: pools exist only for instruction sets that the CPU has; `x` holds the rows of `out` and more.
    unsafe { on(isa, Rows { out, x, weight, eps }) }
}

struct Rows<'a> {
    out: &'a mut [f32],
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
}

impl Kernel for Rows<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let dim = self.weight.len();
        let whole = dim - dim % LANES;
        for (out, x) in self.out.chunks_exact_mut(dim).zip(self.x.chunks_exact(dim)) {
            let (out, x, weight) = (out.as_mut_ptr(), x.as_ptr(), self.weight.as_ptr());
            // SAFETY: `out`, `x` and `weight` hold `dim` values each.
            unsafe {
                let mut squares = L::splat(0.0);
                for i in (0..whole).step_by(LANES) {
                    let x = L::load(x.add(i));
                    squares = x.mul_add(x, squares);
                }
                if whole < dim {
                    let x = L::load_part(x.add(whole), dim - whole);
                    squares = x.mul_add(x, squares);
                }
                let factor = L::splat(1.0 / (squares.sum() / dim as f32 + self.eps).sqrt());
                for i in (0..whole).step_by(LANES) {
                    L::load(x.add(i)).mul(factor).mul(L::load(weight.add(i))).store(out.add(i));
                }
                if whole < dim {
                    let n = dim - whole;
                    let scaled = L::load_part(x.add(whole), n).mul(factor);
                    scaled.mul(L::load_part(weight.add(whole), n)).store_part(out.add(whole), n);
                }
            }
        }
    }
}
