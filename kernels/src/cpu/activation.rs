//! Element-wise ops.

use super::disjoint::chunk_of_rows;
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
                silu(L::load(gate.add(i))).mul(L::load(up.add(i))).store(out.add(i));
            }
            if whole < length {
                let n = length - whole;
                let gate = L::load_part(gate.add(whole), n);
                silu(gate).mul(L::load_part(up.add(whole), n)).store_part(out.add(whole), n);
            }
        }
    }
}

#[inline(always)]
unsafe fn silu<L: Lanes>(g: L) -> L {
    // SAFETY: the caller's.
    unsafe { g.div(L::splat(1.0).add(L::splat(0.0).sub(g).exp())) }
}
