//! What a MoE layer needs around its experts' products: rows to the experts and back.

pub use super::matmul::{Job, grouped};

use super::disjoint::chunk_of_rows;
use super::pool::Pool;

/// Copies rows: `out[i] = x[rows[i]]`, rows of `dim` values. This permutes tokens so that an expert's are contiguous.
///
/// # Panics
/// If `out` is not `[rows.len(), dim]` or `x` lacks a row.
pub fn gather(pool: &Pool, out: &mut [f32], x: &[f32], rows: &[u32], dim: usize) {
    assert_eq!(out.len(), rows.len() * dim, "out is [rows, dim]");
    let length = chunk_of_rows(dim);
    pool.chunks(out, length, |index, out| {
        for (out, &row) in out.chunks_exact_mut(dim).zip(&rows[index * length / dim..]) {
            out.copy_from_slice(&x[row as usize * dim..][..dim]);
        }
    });
}

/// Weighted sum of expert outputs per token: `out[t] = Σ_j weights[t, j] · expert_out[rows[t, j]]`, j ascending.
///
/// `out` is `[tokens, dim]` and overwritten; `rows` and `weights` are `[tokens, top_k]`.
///
/// # Panics
/// If a length does not fit, or `expert_out` lacks a row.
pub fn combine(
    pool: &Pool,
    out: &mut [f32],
    expert_out: &[f32],
    rows: &[u32],
    weights: &[f32],
    top_k: usize,
    dim: usize,
) {
    assert!(out.is_empty() || out.len() / dim * top_k == rows.len(), "rows are [tokens, top_k]");
    assert_eq!(rows.len(), weights.len(), "one weight per row");
    let length = chunk_of_rows(dim);
    pool.chunks(out, length, |index, out| {
        let first = index * length / dim;
        for (t, out) in out.chunks_exact_mut(dim).enumerate() {
            out.fill(0.0);
            for j in (first + t) * top_k..(first + t + 1) * top_k {
                let (row, weight) = (&expert_out[rows[j] as usize * dim..][..dim], weights[j]);
                out.iter_mut().zip(row).for_each(|(out, x)| *out += weight * x);
            }
        }
    });
}
