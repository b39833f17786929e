//! Lanes on AVX2 with FMA: two registers of eight.
#![allow(unsafe_op_in_unsafe_fn)] // the trait's contract is the only condition in each body

use std::arch::x86_64::*;

use half::bf16;

use super::super::mxfp4::E2M1;
use super::{Kernel, LANES, Lanes};

/// Runs a kernel with AVX2 and FMA enabled.
///
/// # Safety
/// The CPU has AVX2 and FMA; the kernel's own pointers are valid.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) {
    kernel.run::<Avx2>();
}

/// Lanes 0..8 and 8..16.
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256, __m256);

impl Lanes for Avx2 {
    const MANY_REGISTERS: bool = false;
    type Bytes = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn splat(x: f32) -> Avx2 {
        Avx2(_mm256_set1_ps(x), _mm256_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Avx2 {
        Avx2(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8)))
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Avx2 {
        let mut padded = [0f32; LANES];
        std::ptr::copy_nonoverlapping(from, padded.as_mut_ptr(), n);
        Avx2::load(padded.as_ptr())
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Avx2 {
        let bits = _mm256_loadu_si256(from.cast());
        let low = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(bits));
        let high = _mm256_cvtepu16_epi32(_mm256_extracti128_si256::<1>(bits));
        Avx2(
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
        )
    }
    #[inline(always)]
    unsafe fn load_bf16_part(from: *const bf16, n: usize) -> Avx2 {
        let mut padded = [bf16::ZERO; LANES];
        std::ptr::copy_nonoverlapping(from, padded.as_mut_ptr(), n);
        Avx2::load_bf16(padded.as_ptr())
    }
    #[inline(always)]
    unsafe fn load_e2m1(from: *const u8) -> Avx2 {
        let bytes = _mm_loadl_epi64(from.cast());
        let twice = _mm_unpacklo_epi8(bytes, bytes);
        Avx2(e2m1(_mm256_cvtepu8_epi32(twice)), e2m1(_mm256_cvtepu8_epi32(_mm_srli_si128::<8>(twice))))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        _mm256_storeu_ps(to, self.0);
        _mm256_storeu_ps(to.add(8), self.1);
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        let mut all = [0f32; LANES];
        self.store(all.as_mut_ptr());
        std::ptr::copy_nonoverlapping(all.as_ptr(), to, n);
    }
    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8) {
        let words = _mm256_packs_epi32(_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
        // packs works in 128-bit halves: [0..4, 8..12 | 4..8, 12..16]
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
        let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        _mm_storeu_si128(to.cast(), bytes);
    }

    #[inline(always)]
    unsafe fn add(self, other: Avx2) -> Avx2 {
        Avx2(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Avx2) -> Avx2 {
        Avx2(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Avx2) -> Avx2 {
        Avx2(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn div(self, other: Avx2) -> Avx2 {
        Avx2(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Avx2, addend: Avx2) -> Avx2 {
        Avx2(_mm256_fmadd_ps(self.0, factor.0, addend.0), _mm256_fmadd_ps(self.1, factor.1, addend.1))
    }
    #[inline(always)]
    unsafe fn max(self, other: Avx2) -> Avx2 {
        Avx2(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn min(self, other: Avx2) -> Avx2 {
        Avx2(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn round_ties_even(self) -> Avx2 {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        Avx2(_mm256_round_ps::<NEAREST>(self.0), _mm256_round_ps::<NEAREST>(self.1))
    }
    #[inline(always)]
    unsafe fn exp2_whole(self) -> Avx2 {
        let half = |x| {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        };
        Avx2(half(self.0), half(self.1))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let eight = _mm256_add_ps(self.0, self.1);
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
    #[inline(always)]
    unsafe fn store_sums8(of: [Avx2; 8], to: *mut f32) {
        for (i, lanes) in of.into_iter().enumerate() {
            *to.add(i) = lanes.sum();
        }
    }
    #[inline(always)]
    unsafe fn max_lane(self) -> f32 {
        let eight = _mm256_max_ps(self.0, self.1);
        let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
    }

    #[inline(always)]
    unsafe fn bytes(from: *const i8) -> (__m256i, __m256i) {
        (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast()))
    }
    #[inline(always)]
    unsafe fn dot_i8(weights: *const i8, x: (__m256i, __m256i)) -> Avx2 {
        // |w| · (x with w's sign): at most 2 · 128 · 127 per 16-bit pair, which does not saturate.
        let half = |w: __m256i, x: __m256i| {
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
            _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        };
        let (low, high) = Avx2::bytes(weights);
        Avx2(half(low, x.0), half(high, x.1))
    }
}

/// Of bytes that come twice: the e2m1 value in the lower half of each first, in the upper half of each second.
#[inline(always)]
unsafe fn e2m1(twice: __m256i) -> __m256 {
    let bits = _mm256_srlv_epi32(twice, _mm256_set1_epi64x(4 << 32));
    // A permutation looks at the lowest three bits only; the fourth is the sign.
    let sizes = _mm256_permutevar8x32_ps(_mm256_loadu_ps(E2M1.as_ptr()), bits);
    let signs = _mm256_slli_epi32::<28>(_mm256_and_si256(bits, _mm256_set1_epi32(8)));
    _mm256_xor_ps(sizes, _mm256_castsi256_ps(signs))
}
