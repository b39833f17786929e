//! Lanes on AVX-512: one register. Int8 products need VNNI on top.
#![allow(unsafe_op_in_unsafe_fn)] // the trait's contract is the only condition in each body

use std::arch::x86_64::*;

use half::bf16;

use super::super::mxfp4::E2M1;
use super::{Kernel, Lanes};

/// Runs a kernel with AVX-512 enabled.
///
/// # Safety
/// The CPU has AVX-512 F, BW, DQ and VL; the kernel uses no int8 products; its own pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) {
    kernel.run::<Avx512>();
}

/// Runs a kernel with AVX-512 and VNNI enabled.
///
/// # Safety
/// The CPU has AVX-512 F, BW, DQ, VL and VNNI; the kernel's own pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn run_vnni<K: Kernel>(kernel: K) {
    kernel.run::<Avx512>();
}

/// Sixteen lanes in one register.
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

/// A mask of the first `n < 16` lanes.
#[inline(always)]
fn first(n: usize) -> u16 {
    (1u16 << n) - 1
}

impl Lanes for Avx512 {
    const MANY_REGISTERS: bool = true;
    /// The values, and -128 times each lane's sum of four (see `dot_i8`).
    type Bytes = (__m512i, __m512i);

    #[inline(always)]
    unsafe fn splat(x: f32) -> Avx512 {
        Avx512(_mm512_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Avx512 {
        Avx512(_mm512_loadu_ps(from))
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Avx512 {
        Avx512(_mm512_maskz_loadu_ps(first(n), from))
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Avx512 {
        widen(_mm256_loadu_si256(from.cast()))
    }
    #[inline(always)]
    unsafe fn load_bf16_part(from: *const bf16, n: usize) -> Avx512 {
        widen(_mm256_maskz_loadu_epi16(first(n), from.cast()))
    }
    #[inline(always)]
    unsafe fn load_e2m1(from: *const u8) -> Avx512 {
        let bytes = _mm_loadl_epi64(from.cast());
        // Every byte twice, then the lower half of the first, the upper half of the second.
        let twice = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(bytes, bytes));
        let shifts = _mm512_set1_epi64(4 << 32);
        // A permutation looks at the lowest four bits only.
        let bits = _mm512_srlv_epi32(twice, shifts);
        Avx512(_mm512_permutexvar_ps(bits, _mm512_loadu_ps(E2M1.as_ptr())))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        _mm512_storeu_ps(to, self.0);
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        _mm512_mask_storeu_ps(to, first(n), self.0);
    }
    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8) {
        _mm_storeu_si128(to.cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(self.0)));
    }

    #[inline(always)]
    unsafe fn add(self, other: Avx512) -> Avx512 {
        Avx512(_mm512_add_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Avx512) -> Avx512 {
        Avx512(_mm512_sub_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Avx512) -> Avx512 {
        Avx512(_mm512_mul_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn div(self, other: Avx512) -> Avx512 {
        Avx512(_mm512_div_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Avx512, addend: Avx512) -> Avx512 {
        Avx512(_mm512_fmadd_ps(self.0, factor.0, addend.0))
    }
    #[inline(always)]
    unsafe fn max(self, other: Avx512) -> Avx512 {
        Avx512(_mm512_max_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn min(self, other: Avx512) -> Avx512 {
        Avx512(_mm512_min_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn round_ties_even(self) -> Avx512 {
        Avx512(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0))
    }
    #[inline(always)]
    unsafe fn exp2_whole(self) -> Avx512 {
        let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
        Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent)))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let eight = _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
    #[inline(always)]
    unsafe fn store_sums8(of: [Avx512; 8], to: *mut f32) {
        // Each step halves the lanes of every value, and so packs two registers into one. A blend takes the halves
        // that lie in place, so that only one shuffle a step is needed for the others: shuffles have one port.
        let [a, b, c, d, e, f, g, h] = of.map(|lanes| lanes.0);
        let abcd = fold_fours(fold_eights(a, b), fold_eights(c, d));
        let efgh = fold_fours(fold_eights(e, f), fold_eights(g, h));
        let kept = _mm512_mask_blend_ps(0b1100_1100_1100_1100, abcd, efgh);
        let moved = _mm512_shuffle_ps::<0b01_00_11_10>(abcd, efgh);
        let twos = _mm512_add_ps(kept, moved); // a a e e | c c g g | b b f f | d d h h
        let ones = _mm512_add_ps(twos, _mm512_permute_ps::<0b10_11_00_01>(twos));
        let order = _mm512_setr_epi32(0, 8, 4, 12, 2, 10, 6, 14, 0, 0, 0, 0, 0, 0, 0, 0);
        _mm256_storeu_ps(to, _mm512_castps512_ps256(_mm512_permutexvar_ps(order, ones)));
    }
    #[inline(always)]
    unsafe fn max_lane(self) -> f32 {
        _mm512_reduce_max_ps(self.0)
    }

    #[inline(always)]
    unsafe fn bytes(from: *const i8) -> (__m512i, __m512i) {
        let x = _mm512_loadu_si512(from.cast());
        let zero = _mm512_setzero_si512();
        let sums = _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(i8::MIN), x);
        (x, _mm512_sub_epi32(zero, sums))
    }
    #[inline(always)]
    unsafe fn dot_i8(weights: *const i8, x: (__m512i, __m512i)) -> Avx512 {
        dot_biased(_mm512_loadu_si512(weights.cast()), x)
    }
    #[inline(always)]
    unsafe fn dot_i8_part(weights: *const i8, n: usize, x: (__m512i, __m512i)) -> Avx512 {
        dot_biased(_mm512_maskz_loadu_epi8((1u64 << n) - 1, weights), x)
    }
}

/// vpdpbusd wants one unsigned factor: flipping the top bit of w gives w + 128, and x brings -128 · Σx along.
#[inline(always)]
unsafe fn dot_biased(w: __m512i, (x, correction): (__m512i, __m512i)) -> Avx512 {
    let biased = _mm512_xor_si512(w, _mm512_set1_epi8(i8::MIN));
    Avx512(_mm512_cvtepi32_ps(_mm512_dpbusd_epi32(correction, biased, x)))
}

#[inline(always)]
unsafe fn widen(bits: __m256i) -> Avx512 {
    Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits))))
}

/// Adds lanes l and l + 8 of both: a's eight sums, then b's.
#[inline(always)]
unsafe fn fold_eights(a: __m512, b: __m512) -> __m512 {
    let kept = _mm512_mask_blend_ps(0xff00, a, b);
    let moved = _mm512_shuffle_f32x4::<0b01_00_11_10>(a, b);
    _mm512_add_ps(kept, moved)
}

/// Adds lanes l and l + 4 of a, b, c, d, given as pairs of eights: four sums each of a, c, b, d.
#[inline(always)]
unsafe fn fold_fours(ab: __m512, cd: __m512) -> __m512 {
    let kept = _mm512_mask_blend_ps(0xf0f0, ab, cd);
    let order = _mm512_setr_epi32(4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27);
    _mm512_add_ps(kept, _mm512_permutex2var_ps(ab, order, cd))
}
