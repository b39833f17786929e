//! `out[m, n] = x[m, k] · w[n, k]ᵀ` with bf16, f32, int8 or MXFP4 weights, one product or several in one run of the pool.
//!
//! Bf16 and MXFP4 weights are widened exactly and activations are not rounded. Int8 weights meet activations that are
//! quantized on the fly ([`quant`]); see [`reference()`] for the arithmetic of both.

mod bytes;
mod dense;
mod packed;
mod split;
pub(crate) mod tile;

use half::bf16;

pub(crate) use bytes::QuantizedRows;
pub(crate) use split::Part;

use super::lanes::{Element, LANES, tree_sum};
use super::mxfp4::{self, Mxfp4View};
use super::pool::Pool;
use super::quant::{self, GROUP, Int8View};

/// A weight matrix `[n, k]`, row-major.
#[derive(Clone, Copy, Debug)]
pub enum Matrix<'a> {
    /// Widened exactly to f32.
    Bf16 {
        /// `[n, k]`
        values: &'a [bf16],
        /// Rows: outputs.
        n: usize,
        /// Columns: inputs.
        k: usize,
    },
    /// As it is.
    F32 {
        /// `[n, k]`
        values: &'a [f32],
        /// Rows: outputs.
        n: usize,
        /// Columns: inputs.
        k: usize,
    },
    /// Quantized in groups along k.
    Int8(Int8View<'a>),
    /// Unpacked exactly to f32.
    Mxfp4(Mxfp4View<'a>),
}

/// One product `out[m, n] = x[m, k] · w[n, k]ᵀ`.
pub struct Job<'a> {
    /// `[m, n]`, overwritten.
    pub out: &'a mut [f32],
    /// `[m, k]`; several jobs may read the same rows (gate and up of one expert; q, k and v of one layer).
    pub x: &'a [f32],
    /// `[n, k]`
    pub w: Matrix<'a>,
    /// Rows of `x` and `out`; 0 is allowed.
    pub m: usize,
}

/// The specification, in one thread and plain Rust: every path gives these very bits.
///
/// A dense product is a tree sum of fused multiply-adds in 16 lanes. An int8 product quantizes each
/// row of `x` as [`quant::reference`] does; lane l then adds, group after group, the exact integer sum of the
/// group's products 4l..4l + 4, times (weight scale · activation scale).
pub fn reference(out: &mut [f32], x: &[f32], w: Matrix<'_>, m: usize) {
    let (n, k) = (w.n(), w.k());
    for row in 0..m {
        let x = &x[row * k..][..k];
        let mut quantized = vec![0; k];
        let mut scales = vec![0.0; k.div_ceil(GROUP)];
        quant::reference(x, k, &mut quantized, &mut scales);
        let mut unpacked = vec![0.0; k];
        for column in 0..n {
            let range = column * k..(column + 1) * k;
            out[row * n + column] = match w {
                Matrix::Bf16 { values, .. } => dot(x, &values[range]),
                Matrix::F32 { values, .. } => dot(x, &values[range]),
                Matrix::Int8(w) => {
                    dot_bytes(&quantized, &scales, &w.values[range], &w.scales[column * scales.len()..])
                }
                Matrix::Mxfp4(w) => {
                    w.reference(column, &mut unpacked);
                    dot(x, &unpacked)
                }
            };
        }
    }
}

fn dot<W: Element>(x: &[f32], w: &[W]) -> f32 {
    let mut lanes = [0.0; LANES];
    for (i, (x, w)) in x.iter().zip(w).enumerate() {
        lanes[i % LANES] = x.mul_add(w.widen(), lanes[i % LANES]);
    }
    tree_sum(lanes)
}

fn dot_bytes(x: &[i8], x_scales: &[f32], w: &[i8], w_scales: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    for (g, (x, w)) in x.chunks(GROUP).zip(w.chunks(GROUP)).enumerate() {
        let mut sums = [0i32; LANES];
        for (i, (x, w)) in x.iter().zip(w).enumerate() {
            sums[i / 4] += i32::from(*x) * i32::from(*w);
        }
        for (lane, sum) in lanes.iter_mut().zip(sums) {
            *lane = (sum as f32).mul_add(w_scales[g] * x_scales[g], *lane);
        }
    }
    tree_sum(lanes)
}

impl Matrix<'_> {
    /// Rows: outputs.
    pub fn n(&self) -> usize {
        match self {
            Matrix::Bf16 { n, .. } | Matrix::F32 { n, .. } => *n,
            Matrix::Int8(Int8View { n, .. }) | Matrix::Mxfp4(Mxfp4View { n, .. }) => *n,
        }
    }

    /// Columns: inputs.
    pub fn k(&self) -> usize {
        match self {
            Matrix::Bf16 { k, .. } | Matrix::F32 { k, .. } => *k,
            Matrix::Int8(Int8View { k, .. }) | Matrix::Mxfp4(Mxfp4View { k, .. }) => *k,
        }
    }

    /// Bytes that one product reads of the matrix.
    pub fn bytes(&self) -> usize {
        match self {
            Matrix::Bf16 { values, .. } => size_of_val(*values),
            Matrix::F32 { values, .. } => size_of_val(*values),
            Matrix::Int8(w) => size_of_val(w.values) + size_of_val(w.scales),
            Matrix::Mxfp4(Mxfp4View { n, k, .. }) => n * k / 2 + n * k / mxfp4::GROUP,
        }
    }
}

/// `out[m, n] = x[m, k] · w[n, k]ᵀ` for any kind of weights.
///
/// # Panics
/// If a slice's length does not fit m, n, k.
pub fn any(pool: &Pool, out: &mut [f32], x: &[f32], w: Matrix<'_>, m: usize) {
    grouped(pool, &mut [Job { out, x, w, m }]);
}

/// [`any`] with bf16 weights: weights widened exactly, activations not rounded, f32 accumulation.
pub fn bf16(pool: &Pool, out: &mut [f32], x: &[f32], w: &[bf16], m: usize, n: usize, k: usize) {
    any(pool, out, x, Matrix::Bf16 { values: w, n, k }, m);
}

/// [`any`] with f32 weights.
pub fn f32(pool: &Pool, out: &mut [f32], x: &[f32], w: &[f32], m: usize, n: usize, k: usize) {
    any(pool, out, x, Matrix::F32 { values: w, n, k }, m);
}

/// [`any`] with int8 weights: each row of `x` is quantized per group of 64 first.
///
/// On normally distributed values, quantizing activations adds an error of 0.56 % of the result's norm, as much as
/// quantizing the weights did; together 0.8 %, whatever k is.
pub fn int8(pool: &Pool, out: &mut [f32], x: &[f32], w: Int8View<'_>, m: usize) {
    any(pool, out, x, Matrix::Int8(w), m);
}

/// Runs all jobs in one run of the pool, the work split evenly over (job, rows, outputs).
///
/// Jobs may differ in shape and in kind of weights. A MoE layer permutes its tokens so that an expert's rows are
/// contiguous ([`moe::gather`](super::moe::gather)), splits the outputs with `split_at_mut`, and makes one job per
/// (expert, matrix).
///
/// # Panics
/// If a slice's length does not fit its job's m, n, k.
pub fn grouped(pool: &Pool, jobs: &mut [Job<'_>]) {
    jobs.iter().for_each(Job::check);
    let mut scratch = pool.scratch();
    let scratch = &mut *scratch;
    scratch.rows.quantize(pool, jobs);
    split::plan(jobs, pool.threads(), &mut scratch.parts);
    let (isa, rows, parts, jobs) = (pool.isa(), &scratch.rows, &scratch.parts, &*jobs);
    pool.tasks(parts.len(), |task| {
        let part = &parts[task];
        let job = &jobs[part.job];
        match job.w {
            Matrix::Bf16 { values, .. } => dense::part(isa, part, job, values),
            Matrix::F32 { values, .. } => dense::part(isa, part, job, values),
            Matrix::Int8(w) => bytes::part(isa, part, rows, &w),
            Matrix::Mxfp4(w) => packed::part(isa, part, job, &w),
        }
    });
}

impl Job<'_> {
    fn check(&self) {
        let (n, k) = (self.w.n(), self.w.k());
        assert_eq!(self.x.len(), self.m * k, "x is [m, k]");
        assert_eq!(self.out.len(), self.m * n, "out is [m, n]");
        let values = match self.w {
            Matrix::Bf16 { values, .. } => values.len(),
            Matrix::F32 { values, .. } => values.len(),
            Matrix::Int8(w) => {
                assert_eq!(w.scales.len(), n * k.div_ceil(GROUP), "scales are [n, ceil(k / {GROUP})]");
                w.values.len()
            }
            Matrix::Mxfp4(w) => {
                assert!(w.is_whole(), "blocks and scales hold every row");
                n * k
            }
        };
        assert_eq!(values, n * k, "w is [n, k]");
    }
}
