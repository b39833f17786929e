//! Element-wise ops.

use super::disjoint::chunk_of_rows;
use super::gate::sigmoid;
use super::lanes::{self, Kernel, LANES, Lanes, on};
use super::pool::Pool;

/// The specification of [`silu_mul`]: `out = g / (1 + e^-g) · up`.
pub fn silu_mul_reference(out: &mut [f32], gate: &[f32], up: &[f32]) {
    for ((out, g), up) in out.iter_mut().zip(gate).zip(up) {
        *out = g / (1.0 + lanes::exp(0.0 - g)) * up;
    }
}

/// `out = silu(gate) · up`, all of one length; silu(g) = g / (1 + e^-g).
///
/// # Panics
/// If the lengths differ.
pub fn silu_mul(pool: &Pool, out: &mut [f32], gate: &[f32], up: &[f32]) {
    assert!(out.len() == gate.len() && out.len() == up.len(), "out, gate and up are of one length");
    let (length, isa) = (chunk_of_rows(LANES), pool.isa());
    pool.chunks(out, length, |index, out| {
        let from = index * length;
        // SAFETY: pools exist only for instruction sets that the CPU has; `gate` and `up` are as long as `out`.
        unsafe { on(isa, SiluMul { out, gate: &gate[from..], up: &up[from..] }) }
    });
}

/// The specification of [`silu`]: `x / (1 + e^-x)`.
pub fn silu_reference(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x /= 1.0 + lanes::exp(0.0 - *x));
}

/// `x = silu(x)`.
pub fn silu(pool: &Pool, x: &mut [f32]) {
    let (length, isa) = (chunk_of_rows(LANES), pool.isa());
    // SAFETY: pools exist only for instruction sets that the CPU has.
    pool.chunks(x, length, |_, x| unsafe { on(isa, Silu { x }) });
}

/// The specification of [`sigmoid_mul`]: `x · 1 / (1 + e^-g)`.
pub fn sigmoid_mul_reference(x: &mut [f32], gate: &[f32]) {
    x.iter_mut().zip(gate).for_each(|(x, g)| *x /= 1.0 + lanes::exp(0.0 - g));
}

/// `x = x · σ(gate)`, both of one length.
///
/// # Panics
/// If the lengths differ.
pub fn sigmoid_mul(pool: &Pool, x: &mut [f32], gate: &[f32]) {
    assert_eq!(x.len(), gate.len(), "x and gate are of one length");
    let (length, isa) = (chunk_of_rows(LANES), pool.isa());
    pool.chunks(x, length, |index, x| {
        // SAFETY: pools exist only for instruction sets that the CPU has; `gate` is as long as `x`.
        unsafe { on(isa, SigmoidMul { x, gate: &gate[index * length..] }) }
    });
}

/// `out += x`.
///
/// # Panics
/// If the lengths differ.
pub fn add(pool: &Pool, out: &mut [f32], x: &[f32]) {
    assert_eq!(out.len(), x.len(), "out and x are of one length");
    let length = chunk_of_rows(LANES);
    pool.chunks(out, length, |index, out| {
        out.iter_mut().zip(&x[index * length..]).for_each(|(out, x)| *out += x);
    });
}

/// `x = α · x + β · y`.
///
/// # Panics
/// If the lengths differ.
pub fn blend(pool: &Pool, x: &mut [f32], y: &[f32], alpha: f32, beta: f32) {
    assert_eq!(x.len(), y.len(), "x and y are of one length");
    let length = chunk_of_rows(LANES);
    pool.chunks(x, length, |index, x| {
        x.iter_mut().zip(&y[index * length..]).for_each(|(x, y)| *x = alpha * *x + beta * y);
    });
}

/// `out[row] += bias`, rows of `bias.len()` values.
///
/// # Panics
/// If `out` is not whole rows.
pub fn add_to_rows(pool: &Pool, out: &mut [f32], bias: &[f32]) {
    assert!(!bias.is_empty() && out.len().is_multiple_of(bias.len()), "out is [rows, bias]");
    pool.chunks(out, chunk_of_rows(bias.len()), |_, out| {
        for row in out.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
        }
    });
}

/// `out[row] *= sigmoid(gates[row])`, rows of `dim` values; sigmoid(g) = 1 / (1 + e^-g).
///
/// # Panics
/// If the lengths do not fit.
pub fn gate_rows(pool: &Pool, out: &mut [f32], gates: &[f32], dim: usize) {
    assert_eq!(out.len(), gates.len() * dim, "out is [gates, dim]");
    let length = chunk_of_rows(dim);
    pool.chunks(out, length, |index, out| {
        for (row, gate) in out.chunks_exact_mut(dim).zip(&gates[index * length / dim..]) {
            let factor = sigmoid(*gate);
            row.iter_mut().for_each(|out| *out *= factor);
        }
    });
}

/// `out = (up + 1) · g · sigmoid(alpha · g)` of g = min(gate, limit) and up within ±limit: the clamped SwiGLU of GPT-OSS.
///
/// # Panics
/// If the lengths differ.
pub fn clamped_swiglu(pool: &Pool, out: &mut [f32], gate: &[f32], up: &[f32], alpha: f32, limit: f32) {
    assert!(out.len() == gate.len() && out.len() == up.len(), "out, gate and up are of one length");
    let length = chunk_of_rows(LANES);
    pool.chunks(out, length, |index, out| {
        let from = index * length;
        for ((out, gate), up) in out.iter_mut().zip(&gate[from..]).zip(&up[from..]) {
            // A NaN stays one.
            let gate = if *gate > limit { limit } else { *gate };
            let up = if *up > limit {
                limit
            } else if *up < -limit {
                -limit
            } else {
                *up
            };
            *out = (up + 1.0) * (gate * sigmoid(alpha * gate));
        }
    });
}

struct SiluMul<'a> {
    out: &'a mut [f32],
    gate: &'a [f32],
    up: &'a [f32],
}

impl Kernel for SiluMul<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let length = self.out.len();
        let whole = length - length % LANES;
        let (out, gate, up) = (self.out.as_mut_ptr(), self.gate.as_ptr(), self.up.as_ptr());
        // SAFETY: `gate` and `up` hold at least `length` values.
        unsafe {
            for i in (0..whole).step_by(LANES) {
                let gate = L::load(gate.add(i));
                times_sigmoid(gate, gate).mul(L::load(up.add(i))).store(out.add(i));
            }
            if whole < length {
                let n = length - whole;
                let gate = L::load_part(gate.add(whole), n);
                times_sigmoid(gate, gate).mul(L::load_part(up.add(whole), n)).store_part(out.add(whole), n);
            }
        }
    }
}

struct Silu<'a> {
    x: &'a mut [f32],
}

impl Kernel for Silu<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let whole = self.x.len() - self.x.len() % LANES;
        let (x, n) = (self.x.as_mut_ptr(), self.x.len() - whole);
        // SAFETY: within `x`.
        unsafe {
            for i in (0..whole).step_by(LANES) {
                let lanes = L::load(x.add(i));
                times_sigmoid(lanes, lanes).store(x.add(i));
            }
            if n > 0 {
                let lanes = L::load_part(x.add(whole), n);
                times_sigmoid(lanes, lanes).store_part(x.add(whole), n);
            }
        }
    }
}

struct SigmoidMul<'a> {
    x: &'a mut [f32],
    gate: &'a [f32],
}

impl Kernel for SigmoidMul<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let whole = self.x.len() - self.x.len() % LANES;
        let (x, gate, n) = (self.x.as_mut_ptr(), self.gate.as_ptr(), self.x.len() - whole);
        // SAFETY: `gate` holds at least as many values as `x`.
        unsafe {
            for i in (0..whole).step_by(LANES) {
                times_sigmoid(L::load(x.add(i)), L::load(gate.add(i))).store(x.add(i));
            }
            if n > 0 {
                let (lanes, gate) = (L::load_part(x.add(whole), n), L::load_part(gate.add(whole), n));
                times_sigmoid(lanes, gate).store_part(x.add(whole), n);
            }
        }
    }
}

/// `x · σ(g)`.
#[inline(always)]
unsafe fn times_sigmoid<L: Lanes>(x: L, g: L) -> L {
    // SAFETY: the caller's.
    unsafe { x.div(L::splat(1.0).add(L::splat(0.0).sub(g).exp())) }
}
