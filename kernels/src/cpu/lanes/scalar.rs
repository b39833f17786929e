//! Lanes in plain Rust: the specification of the others.
#![allow(unsafe_op_in_unsafe_fn)] // the trait's contract is the only condition in each body

use half::bf16;

use super::super::mxfp4::E2M1;
use super::{LANES, Lanes, tree_sum};

/// Sixteen lanes as an array.
#[derive(Clone, Copy)]
pub(crate) struct Scalar([f32; LANES]);

impl Scalar {
    #[inline(always)]
    fn zip(self, other: Scalar, f: impl Fn(f32, f32) -> f32) -> Scalar {
        Scalar(std::array::from_fn(|l| f(self.0[l], other.0[l])))
    }
}

impl Lanes for Scalar {
    const MANY_REGISTERS: bool = false;
    type Bytes = [i8; 64];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Scalar {
        Scalar([x; LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Scalar {
        Scalar(from.cast::<[f32; LANES]>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Scalar {
        Scalar(std::array::from_fn(|l| if l < n { *from.add(l) } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Scalar {
        Scalar(std::array::from_fn(|l| (*from.add(l)).to_f32()))
    }
    #[inline(always)]
    unsafe fn load_bf16_part(from: *const bf16, n: usize) -> Scalar {
        Scalar(std::array::from_fn(|l| if l < n { (*from.add(l)).to_f32() } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn load_e2m1(from: *const u8) -> Scalar {
        Scalar(std::array::from_fn(|l| E2M1[usize::from(*from.add(l / 2) >> (l % 2 * 4) & 15)]))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        to.cast::<[f32; LANES]>().write_unaligned(self.0);
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        std::ptr::copy_nonoverlapping(self.0.as_ptr(), to, n);
    }
    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8) {
        for (l, x) in self.0.iter().enumerate() {
            *to.add(l) = x.round_ties_even() as i8;
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Scalar) -> Scalar {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Scalar) -> Scalar {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Scalar) -> Scalar {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Scalar) -> Scalar {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Scalar, addend: Scalar) -> Scalar {
        Scalar(std::array::from_fn(|l| self.0[l].mul_add(factor.0[l], addend.0[l])))
    }
    #[inline(always)]
    unsafe fn max(self, other: Scalar) -> Scalar {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Scalar) -> Scalar {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn round_ties_even(self) -> Scalar {
        Scalar(self.0.map(f32::round_ties_even))
    }
    #[inline(always)]
    unsafe fn exp2_whole(self) -> Scalar {
        Scalar(self.0.map(|x| f32::from_bits(((x as i32 + 127) as u32) << 23)))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        tree_sum(self.0)
    }
    #[inline(always)]
    unsafe fn store_sums8(of: [Scalar; 8], to: *mut f32) {
        for (i, lanes) in of.into_iter().enumerate() {
            *to.add(i) = tree_sum(lanes.0);
        }
    }
    #[inline(always)]
    unsafe fn max_lane(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    unsafe fn bytes(from: *const i8) -> [i8; 64] {
        from.cast::<[i8; 64]>().read()
    }
    #[inline(always)]
    unsafe fn dot_i8(weights: *const i8, x: [i8; 64]) -> Scalar {
        Scalar(std::array::from_fn(|l| {
            let products = (4 * l..4 * l + 4).map(|i| i32::from(*weights.add(i)) * i32::from(x[i]));
            products.sum::<i32>() as f32
        }))
    }
}
