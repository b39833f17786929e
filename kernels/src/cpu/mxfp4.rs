//! MXFP4 (OCP Microscaling Formats 1.0): numbers of four bits, 32 of which share a power of two. Checkpoints of GPT-OSS
//! have their experts so; they are computed with as they lie.

use super::isa::Isa;
use super::lanes::{Kernel, LANES, Lanes, on};

/// Values that share a scale.
pub const GROUP: usize = 32;

/// Bytes of a group: two values each.
const BLOCK: usize = GROUP / 2;

/// The values of e2m1 by their bits: sign, two of exponent, one of mantissa.
pub(crate) const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// A matrix `[n, k]` that borrows its values: some rows of a larger one.
#[derive(Clone, Copy, Debug)]
pub struct Mxfp4View<'a> {
    /// `[rows, k / 32, 16]`: two e2m1 values a byte, the first in the lower half.
    pub blocks: &'a [u8],
    /// `[rows, k / 32]`: of each group the exponent of its power of two and 127; 255 stands for NaN.
    pub scales: &'a [u8],
    /// Rows of this matrix: outputs.
    pub n: usize,
    /// Columns: inputs; a multiple of 32.
    pub k: usize,
    /// The row of `blocks` and `scales` that is row 0 here.
    pub first: usize,
    /// Rows there for one row here.
    pub step: usize,
}

impl<'a> Mxfp4View<'a> {
    /// Blocks and scales of row `i`.
    fn row(&self, i: usize) -> (&'a [u8], &'a [u8]) {
        let (row, groups) = (self.first + i * self.step, self.k / GROUP);
        (&self.blocks[row * groups * BLOCK..][..groups * BLOCK], &self.scales[row * groups..][..groups])
    }

    /// The specification: the values of row `i`, exactly.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not `k` long.
    pub fn reference(&self, i: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.k, "out is [k]");
        let (blocks, scales) = self.row(i);
        for ((out, block), scale) in out.chunks_mut(GROUP).zip(blocks.chunks(BLOCK)).zip(scales) {
            for (pair, byte) in out.chunks_mut(2).zip(block) {
                pair[0] = E2M1[usize::from(byte & 15)] * power_of_two(*scale);
                pair[1] = E2M1[usize::from(byte >> 4)] * power_of_two(*scale);
            }
        }
    }

    /// Whether every row is there and has whole groups.
    pub(crate) fn is_whole(&self) -> bool {
        let (groups, rows) = (self.k / GROUP, self.first + self.n.saturating_sub(1) * self.step + 1);
        self.k.is_multiple_of(GROUP)
            && (self.n == 0
                || self.blocks.len() >= rows * groups * BLOCK && self.scales.len() >= rows * groups)
    }
}

/// 2^(exponent - 127), and NaN for 255.
fn power_of_two(exponent: u8) -> f32 {
    match exponent {
        0 => f32::from_bits(1 << 22), // subnormal
        255 => f32::NAN,
        exponent => f32::from_bits(u32::from(exponent) << 23),
    }
}

/// [`Mxfp4View::reference`] of rows `first..`, as many as fit into `out`.
pub(crate) fn unpack(isa: Isa, w: &Mxfp4View<'_>, first: usize, out: &mut [f32]) {
    for (i, out) in out.chunks_exact_mut(w.k.max(1)).enumerate() {
        let (blocks, scales) = w.row(first + i);
        // SAFETY: pools exist only for instruction sets that the CPU has; a row has a block and 32 values a scale.
        unsafe { on(isa, Unpack { out, blocks, scales }) }
    }
}

struct Unpack<'a> {
    out: &'a mut [f32],
    blocks: &'a [u8],
    scales: &'a [u8],
}

impl Kernel for Unpack<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let (out, blocks) = (self.out.as_mut_ptr(), self.blocks.as_ptr());
        for (group, scale) in self.scales.iter().enumerate() {
            // SAFETY: a group has 16 bytes and 32 values.
            unsafe {
                let scale = L::splat(power_of_two(*scale));
                for half in 0..2 {
                    let values = L::load_e2m1(blocks.add(group * BLOCK + half * LANES / 2));
                    values.mul(scale).store(out.add(group * GROUP + half * LANES));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_reach_from_end_to_end() {
        assert_eq!(power_of_two(127), 1.0);
        assert_eq!(power_of_two(0), 2f32.powi(-127));
        assert_eq!(power_of_two(1), 2f32.powi(-126));
        assert_eq!(power_of_two(254), 2f32.powi(127));
        assert!(power_of_two(255).is_nan());
    }
}
