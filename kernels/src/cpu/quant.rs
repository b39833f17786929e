//! Int8: symmetric, one scale per group of [`GROUP`] values along k. Weights are quantized while loading,
//! activations on the fly by the int8 products.

use half::bf16;

use super::disjoint::Disjoint;
use super::isa::Isa;
use super::lanes::{Element, Kernel, LANES, Lanes, on};
use super::memory;
use super::pool::Pool;

/// Values that share a scale.
pub const GROUP: usize = 64;

/// A group whose largest magnitude is below this counts as zeros: 127 / max would overflow.
const TINY: f32 = 1e-30;

/// The specification. `x` is rows of `k`; `values` is as long, `scales` is `[rows, ceil(k / GROUP)]`.
///
/// Scale = max |x| / 127, value = x · (127 / max |x|) rounded to nearest even. A group of zeros has scale 0. A group
/// with an infinity or a NaN has a NaN scale, so that what is computed from it is NaN too.
pub fn reference(x: &[f32], k: usize, values: &mut [i8], scales: &mut [f32]) {
    let groups = x.chunks(k.max(1)).flat_map(|row| row.chunks(GROUP));
    let places = values.chunks_mut(k.max(1)).flat_map(|row| row.chunks_mut(GROUP));
    for ((x, values), scale) in groups.zip(places).zip(scales) {
        let max = x.iter().fold(0f32, |max, x| max.max(x.abs()));
        let inverse = if max < TINY { 0.0 } else { 127.0 / max };
        *scale = if x.iter().any(|x| !x.is_finite()) {
            f32::NAN
        } else if max < TINY {
            0.0
        } else {
            max / 127.0
        };
        for (value, x) in values.iter_mut().zip(x) {
            *value = (x * inverse).round_ties_even() as i8;
        }
    }
}

/// A quantized matrix `[n, k]` that owns its values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Int8 {
    /// Rows: outputs.
    pub n: usize,
    /// Columns: inputs.
    pub k: usize,
    /// `[n, k]`, within ±127.
    pub values: Vec<i8>,
    /// `[n, ceil(k / GROUP)]`
    pub scales: Vec<f32>,
}

/// A quantized matrix `[n, k]` that borrows its values.
#[derive(Clone, Copy, Debug)]
pub struct Int8View<'a> {
    /// `[n, k]`, within ±127.
    pub values: &'a [i8],
    /// `[n, ceil(k / GROUP)]`
    pub scales: &'a [f32],
    /// Rows: outputs.
    pub n: usize,
    /// Columns: inputs.
    pub k: usize,
}

impl Int8 {
    /// Bytes that the values and scales of an `[n, k]` matrix take.
    pub fn bytes_for(n: usize, k: usize) -> usize {
        n * k + n * k.div_ceil(GROUP) * size_of::<f32>()
    }

    /// Quantizes `w`, `[n, k]`, as [`reference()`] does.
    ///
    /// # Panics
    /// If `w` is not `[n, k]`.
    pub fn quantize_bf16(pool: &Pool, w: &[bf16], n: usize, k: usize) -> Int8 {
        assert_eq!(w.len(), n * k, "w is [n, k]");
        let groups = k.div_ceil(GROUP);
        let mut values = vec![0; n * k];
        let mut scales = vec![0.0; n * groups];
        memory::prefer_huge_pages(&values);
        let (rows, scale_rows) = (Disjoint::new(&mut values, k), Disjoint::new(&mut scales, groups));
        let isa = pool.isa();
        const ROWS: usize = 16;
        pool.tasks(n.div_ceil(ROWS), |task| {
            for i in task * ROWS..n.min((task + 1) * ROWS) {
                // SAFETY: every row is one task's, and has room for k values and a scale per group.
                unsafe {
                    let (values, scales) = (rows.row(i), scale_rows.row(i));
                    row(isa, &w[i * k..][..k], values.as_mut_ptr(), scales.as_mut_ptr(), false);
                }
            }
        });
        Int8 { n, k, values, scales }
    }

    /// The matrix, borrowed.
    pub fn view(&self) -> Int8View<'_> {
        Int8View { values: &self.values, scales: &self.scales, n: self.n, k: self.k }
    }
}

/// Quantizes one row. With `padded`, zeros fill the last group of `values`.
///
/// # Safety
/// The CPU has `isa`; `scales` has room for a value per group, `values` for the row (`padded`: for whole groups).
pub(crate) unsafe fn row<W: Element>(isa: Isa, x: &[W], values: *mut i8, scales: *mut f32, padded: bool) {
    // SAFETY: the caller's.
    unsafe { on(isa, Row { x, values, scales, padded }) }
}

struct Row<'a, W> {
    x: &'a [W],
    values: *mut i8,
    scales: *mut f32,
    padded: bool,
}

impl<W: Element> Kernel for Row<'_, W> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: the caller's.
        unsafe {
            let groups = self.x.len().div_ceil(GROUP);
            for g in 0..groups {
                let length = GROUP.min(self.x.len() - g * GROUP);
                let from = self.x.as_ptr().add(g * GROUP);
                let to = self.values.add(g * GROUP);
                *self.scales.add(g) = if length == GROUP {
                    let quarter = |q| W::load::<L>(from.add(q * LANES));
                    group(quarter, to)
                } else {
                    let mut padded = [0f32; GROUP];
                    for i in 0..length {
                        padded[i] = (*from.add(i)).widen();
                    }
                    let mut bytes = [0i8; GROUP];
                    let scale = group(|q| L::load(padded.as_ptr().add(q * LANES)), bytes.as_mut_ptr());
                    let stored = if self.padded { GROUP } else { length };
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, stored);
                    scale
                };
            }
        }
    }
}

/// Quantizes 64 values, given as four times sixteen; returns their scale.
#[inline(always)]
unsafe fn group<L: Lanes>(quarter: impl Fn(usize) -> L, to: *mut i8) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let zero = L::splat(0.0);
        let (mut max, mut poison) = (zero, zero);
        for q in 0..4 {
            let x = quarter(q);
            max = max.max(x.max(zero.sub(x)));
            poison = x.mul_add(zero, poison); // NaN from the first infinity or NaN on
        }
        let (max, poison) = (max.max_lane(), poison.sum());
        let inverse = if max < TINY { 0.0 } else { 127.0 / max };
        for q in 0..4 {
            quarter(q).mul(L::splat(inverse)).store_i8(to.add(q * LANES));
        }
        if poison.is_nan() {
            f32::NAN
        } else if max < TINY {
            0.0
        } else {
            max / 127.0
        }
    }
}
