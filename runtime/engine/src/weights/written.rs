//! A matrix as a checkpoint has it, whatever the layout and the number format.

use crate::weights::quantize::{to_bf16, to_f32};
use crate::weights::safetensors::Dtype;
use crate::weights::shard::TensorView;
use half::bf16;
use std::borrow::Cow;

/// A matrix `[out, in]`.
#[derive(Clone, Debug)]
pub enum Written {
    /// Row by row.
    Rows(TensorView),
    /// Some columns of a matrix `[in, columns]`: output i is column `first + i · step`.
    Columns {
        /// All of it.
        view: TensorView,
        /// Outputs.
        outputs: usize,
        /// Column of output 0.
        first: usize,
        /// Columns to the next output.
        step: usize,
    },
    /// Some rows in MXFP4: output i is row `first + i · step`.
    Mxfp4 {
        /// `[rows, in / 32, 16]`: two e2m1 values a byte, the first in the lower half.
        blocks: TensorView,
        /// `[rows, in / 32]`: of each 32 values the exponent of a power of two, e8m0.
        scales: TensorView,
        /// Outputs.
        outputs: usize,
        /// Row of output 0.
        first: usize,
        /// Rows to the next output.
        step: usize,
    },
}

/// Values that share a scale in MXFP4.
pub const MXFP4_GROUP: usize = 32;
/// The values of e2m1 by their lower three bits; the fourth is the sign.
const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

impl Written {
    /// Outputs and inputs.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Written::Rows(view) => [view.shape()[0], view.shape()[1]],
            Written::Columns { view, outputs, .. } => [*outputs, view.shape()[0]],
            Written::Mxfp4 { scales, outputs, .. } => [*outputs, scales.shape()[1] * MXFP4_GROUP],
        }
    }

    /// How many values it has.
    pub fn values(&self) -> usize {
        self.shape().iter().product()
    }

    /// Bytes of the checkpoint that it stands for.
    pub fn bytes(&self) -> usize {
        match self {
            Written::Rows(view) => view.bytes().len(),
            Written::Columns { view, .. } => self.values() * view.dtype().bits() as usize / 8,
            Written::Mxfp4 { .. } => self.values() / 2 + self.values() / MXFP4_GROUP,
        }
    }

    /// Are the values f32, which no other format holds exactly?
    pub fn is_f32(&self) -> bool {
        match self {
            Written::Rows(view) | Written::Columns { view, .. } => view.dtype() == Dtype::F32,
            Written::Mxfp4 { .. } => false,
        }
    }

    /// The values in f32, exactly, row by row.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Written::Rows(view) => to_f32(view),
            Written::Columns { view, .. } => self.transposed(&to_f32(view)),
            Written::Mxfp4 { .. } => self.unpacked(|value| value),
        }
    }

    /// The values in bf16, row by row, rounded to nearest even unless they are bf16 already. Those of MXFP4 are exact.
    pub fn to_bf16(&self) -> Cow<'_, [bf16]> {
        match self {
            Written::Rows(view) => to_bf16(view),
            Written::Columns { view, .. } => self.transposed(&to_bf16(view)).into(),
            Written::Mxfp4 { .. } => self.unpacked(bf16::from_f32).into(),
        }
    }

    /// Tells the system that the mapped pages are not needed any more.
    pub fn forget_pages(&self) {
        if let Written::Rows(view) = self {
            view.forget_pages();
        }
    }

    fn transposed<T: Copy>(&self, of: &[T]) -> Vec<T> {
        let Written::Columns { view, outputs, first, step } = self else { return of.to_vec() };
        let (inputs, columns) = (view.shape()[0], view.shape()[1]);
        let column = |output: usize| (0..inputs).map(move |i| of[i * columns + first + output * step]);
        (0..*outputs).flat_map(column).collect()
    }

    fn unpacked<T>(&self, to: impl Fn(f32) -> T) -> Vec<T> {
        let Written::Mxfp4 { blocks, scales, outputs, first, step } = self else { return Vec::new() };
        let groups = scales.shape()[1];
        let (blocks, scales) = (blocks.bytes(), scales.bytes());
        let mut out = Vec::with_capacity(self.values());
        for row in (0..*outputs).map(|output| first + output * step) {
            for group in row * groups..(row + 1) * groups {
                let scale = power_of_two(scales[group]);
                for byte in &blocks[group * MXFP4_GROUP / 2..][..MXFP4_GROUP / 2] {
                    out.extend([byte & 15, byte >> 4].map(|bits| to(e2m1(bits) * scale)));
                }
            }
        }
        out
    }
}

fn e2m1(bits: u8) -> f32 {
    let size = E2M1[usize::from(bits & 7)];
    if bits & 8 == 0 { size } else { -size }
}

/// 2^(exponent - 127), and NaN for 255.
fn power_of_two(exponent: u8) -> f32 {
    match exponent {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        exponent => f32::from_bits(u32::from(exponent) << 23),
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
        assert_eq!([1, 7, 8, 15].map(e2m1), [0.5, 6.0, -0.0, -6.0]);
    }
}
