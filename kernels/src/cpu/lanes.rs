//! Sixteen f32 lanes: the shape in which every op adds numbers up, whatever the width of the registers.
//!
//! The rules that make results equal bit by bit on every instruction set:
//! - element i of a sum goes to lane `i % 16`, i ascending, by one fused multiply-add or add;
//! - lanes are then added as a tree: l + (l + 8), l + (l + 4), l + (l + 2), l + (l + 1);
//! - `max` and `min` return their second operand when either is NaN.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use std::f32::consts::LOG2_E;

use half::bf16;

pub(crate) use scalar::Scalar;

use super::isa::Isa;

/// Lanes in a [`Lanes`].
pub(crate) const LANES: usize = 16;

/// Sixteen f32 lanes on one instruction set.
///
/// # Safety
/// Every method may be called only on a CPU that has the instruction set, in code inlined into a function that
/// enables it (see [`on`]); pointers must be valid for the lanes named. Pointers need no alignment.
pub(crate) trait Lanes: Copy {
    /// Whether some thirty values of this type fit the registers; otherwise about six do.
    const MANY_REGISTERS: bool;

    /// 64 int8 activations, made ready for [`Lanes::dot_i8`].
    type Bytes: Copy;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// The first `n < 16` lanes, zeros after them.
    unsafe fn load_part(from: *const f32, n: usize) -> Self;
    unsafe fn load_bf16(from: *const bf16) -> Self;
    /// The first `n < 16` lanes, zeros after them.
    unsafe fn load_bf16_part(from: *const bf16, n: usize) -> Self;
    /// Sixteen e2m1 values, two a byte, the first in the lower half.
    unsafe fn load_e2m1(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// The first `n < 16` lanes.
    unsafe fn store_part(self, to: *mut f32, n: usize);
    /// Rounds to nearest even and stores 16 values as int8; values are within ±127.
    unsafe fn store_i8(self, to: *mut i8);

    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self · factor + addend`, rounded once.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
    unsafe fn round_ties_even(self) -> Self;
    /// 2^self of whole numbers in -127..=128; -127 gives 0, 128 infinity.
    unsafe fn exp2_whole(self) -> Self;

    /// The tree sum.
    unsafe fn sum(self) -> f32;
    /// The tree sums of eight values, stored side by side.
    unsafe fn store_sums8(of: [Self; 8], to: *mut f32);
    /// The largest lane, no lane being NaN.
    unsafe fn max_lane(self) -> f32;

    /// 64 activations within ±127.
    unsafe fn bytes(from: *const i8) -> Self::Bytes;
    /// Lane l: the exact sum of the products 4l..4l + 4 of 64 weights and 64 activations.
    unsafe fn dot_i8(weights: *const i8, x: Self::Bytes) -> Self;
    /// [`Lanes::dot_i8`] of the first `n < 64` weights.
    #[inline(always)]
    unsafe fn dot_i8_part(weights: *const i8, n: usize, x: Self::Bytes) -> Self {
        let mut padded = [0i8; 64];
        // SAFETY: `weights` is valid for `n` values.
        unsafe {
            std::ptr::copy_nonoverlapping(weights, padded.as_mut_ptr(), n);
            Self::dot_i8(padded.as_ptr(), x)
        }
    }

    /// [`exp`] of every lane.
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        // SAFETY: the contract of the trait.
        unsafe {
            let x = Self::splat(EXP_MAX).min(Self::splat(EXP_MIN).max(self));
            let n = x.mul(Self::splat(LOG2_E)).round_ties_even();
            let n = n.max(Self::splat(-127.0));
            let r = n.mul_add(Self::splat(-LN_2_HIGH), x);
            let r = n.mul_add(Self::splat(-LN_2_LOW), r);
            let mut p = Self::splat(EXP[0]);
            for c in &EXP[1..] {
                p = p.mul_add(r, Self::splat(*c));
            }
            let p = p.mul_add(r.mul(r), r).add(Self::splat(1.0));
            p.mul(n.exp2_whole())
        }
    }
}

/// Beyond these the result is infinity and 0.
const EXP_MAX: f32 = 89.0;
const EXP_MIN: f32 = -105.0;
/// ln 2 in two parts: whole numbers times the high part are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// (e^r - 1 - r) / r² for |r| ≤ ln 2 / 2, highest power first.
const EXP: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5];

/// e^x to about 1 ulp: 0 below -87.7, infinity above 88.3, NaN for NaN. The specification of [`Lanes::exp`].
pub(crate) fn exp(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let x = x.clamp(EXP_MIN, EXP_MAX);
    let n = (x * LOG2_E).round_ties_even().max(-127.0);
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let p = EXP[1..].iter().fold(EXP[0], |p, c| p.mul_add(r, *c));
    let p = p.mul_add(r * r, r) + 1.0;
    p * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

/// The tree sum of sixteen lanes: the specification of [`Lanes::sum`].
pub(crate) fn tree_sum(mut lanes: [f32; LANES]) -> f32 {
    for width in [8, 4, 2, 1] {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
    }
    lanes[0]
}

/// Weights that widen exactly to f32 lanes.
pub(crate) trait Element: Copy + Sync {
    fn widen(self) -> f32;
    /// # Safety
    /// As [`Lanes::load`].
    unsafe fn load<L: Lanes>(from: *const Self) -> L;
    /// # Safety
    /// As [`Lanes::load_part`].
    unsafe fn load_part<L: Lanes>(from: *const Self, n: usize) -> L;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const f32) -> L {
        // SAFETY: the caller's.
        unsafe { L::load(from) }
    }
    #[inline(always)]
    unsafe fn load_part<L: Lanes>(from: *const f32, n: usize) -> L {
        // SAFETY: the caller's.
        unsafe { L::load_part(from, n) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const bf16) -> L {
        // SAFETY: the caller's.
        unsafe { L::load_bf16(from) }
    }
    #[inline(always)]
    unsafe fn load_part<L: Lanes>(from: *const bf16, n: usize) -> L {
        // SAFETY: the caller's.
        unsafe { L::load_bf16_part(from, n) }
    }
}

/// An op's inner loop, written once for every instruction set. `run`, and what it calls with lanes, must be
/// `#[inline(always)]` and no closure: otherwise it is compiled without the instruction set, some fifty times slower.
pub(crate) trait Kernel {
    /// # Safety
    /// As [`Lanes`]; and the kernel's own pointers are valid.
    unsafe fn run<L: Lanes>(self);
}

/// Runs a kernel on an instruction set. Kernels with int8 products go through [`on_bytes`].
///
/// # Safety
/// The CPU has `isa` and the kernel's own pointers are valid.
#[inline]
pub(crate) unsafe fn on<K: Kernel>(isa: Isa, kernel: K) {
    // SAFETY: the caller's.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni => avx512::run(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::run(kernel),
            _ => kernel.run::<Scalar>(),
        }
    }
}

/// [`on`] for kernels with int8 products: AVX-512 without VNNI uses AVX2.
///
/// # Safety
/// As [`on`].
#[inline]
pub(crate) unsafe fn on_bytes<K: Kernel>(isa: Isa, kernel: K) {
    // SAFETY: the caller's.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => avx512::run_vnni(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx2 => avx2::run(kernel),
            _ => kernel.run::<Scalar>(),
        }
    }
}

/// How far ahead weights are asked for, in panels of `bytes`: memory answers in the time that some 16 KiB take.
#[inline(always)]
pub(crate) fn panels_ahead(bytes: usize) -> usize {
    (16usize << 10).div_ceil(bytes.max(1))
}

/// Asks for the cache line at `of`, which need not be valid.
#[inline(always)]
pub(crate) fn prefetch<T>(of: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint without effect on memory; every x86-64 CPU has SSE.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(of.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = of;
}
