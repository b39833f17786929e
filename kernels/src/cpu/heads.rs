//! Rows made of heads: cut, put together, and brought head by head.

use super::disjoint::chunk_of_rows;
use super::pool::Pool;

/// Of every head of `x`, `[…, width]`, the `dim` values from `first` on: `out` is `[…, dim]`.
///
/// # Panics
/// If a length does not fit, or a head is not that wide.
pub fn part(pool: &Pool, out: &mut [f32], x: &[f32], width: usize, first: usize, dim: usize) {
    assert!(dim > 0 && first + dim <= width, "the part is within the head");
    assert_eq!(x.len() / width * dim, out.len(), "out is [heads, dim]");
    let length = chunk_of_rows(dim);
    pool.chunks(out, length, |index, out| {
        let heads = x[index * length / dim * width..].chunks_exact(width);
        out.chunks_exact_mut(dim).zip(heads).for_each(|(out, x)| out.copy_from_slice(&x[first..first + dim]));
    });
}

/// Heads of `a`, `[…, a_dim]`, each with that of `b`, `[…, b_dim]`, behind it.
///
/// # Panics
/// If a length does not fit.
pub fn join(pool: &Pool, out: &mut [f32], [a, b]: [&[f32]; 2], [a_dim, b_dim]: [usize; 2]) {
    let width = a_dim + b_dim;
    assert!(a_dim > 0 && b_dim > 0, "both have something");
    assert_eq!(a.len() / a_dim * width, out.len(), "out is [heads, a_dim + b_dim]");
    assert_eq!(b.len() / b_dim * width, out.len(), "a and b are of as many heads");
    let length = chunk_of_rows(width);
    pool.chunks(out, length, |index, out| {
        let first = index * length / width;
        let heads = a[first * a_dim..].chunks_exact(a_dim).zip(b[first * b_dim..].chunks_exact(b_dim));
        for (out, (a, b)) in out.chunks_exact_mut(width).zip(heads) {
            out[..a_dim].copy_from_slice(a);
            out[a_dim..].copy_from_slice(b);
        }
    });
}

/// `x`, `[rows, columns, dim]`, as `[columns, rows, dim]`.
///
/// # Panics
/// If a length does not fit.
pub fn swap(pool: &Pool, out: &mut [f32], x: &[f32], rows: usize, columns: usize, dim: usize) {
    assert_eq!(x.len(), rows * columns * dim, "x is [rows, columns, dim]");
    assert_eq!(out.len(), x.len(), "out is [columns, rows, dim]");
    if out.is_empty() {
        return;
    }
    let length = chunk_of_rows(dim);
    pool.chunks(out, length, |index, out| {
        let first = index * length / dim;
        for (place, out) in (first..).zip(out.chunks_exact_mut(dim)) {
            let (column, row) = (place / rows, place % rows);
            out.copy_from_slice(&x[(row * columns + column) * dim..][..dim]);
        }
    });
}
