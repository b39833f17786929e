//! A matrix as a checkpoint has it, whatever the layout and the number format.

use crate::weights::quantize::{to_bf16, to_f32};
use crate::weights::safetensors::Dtype;
use crate::weights::shard::TensorView;
use coterie_kernels::cpu::mxfp4::{self, Mxfp4View};
use coterie_kernels::cpu::pool::Pool;
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
    /// Some rows in MXFP4.
    Mxfp4(Packed),
}

/// Some rows of a matrix in MXFP4: output i is row `first + i · step`.
#[derive(Clone, Debug)]
pub struct Packed {
    /// `[rows, in / 32, 16]`: two e2m1 values a byte, the first in the lower half.
    pub blocks: TensorView,
    /// `[rows, in / 32]`: of each 32 values the exponent of a power of two, e8m0.
    pub scales: TensorView,
    /// Outputs.
    pub outputs: usize,
    /// Row of output 0.
    pub first: usize,
    /// Rows to the next output.
    pub step: usize,
}

impl Packed {
    /// The rows as they lie in the file.
    pub fn view(&self) -> Mxfp4View<'_> {
        let Packed { blocks, scales, outputs: n, first, step } = self;
        let k = scales.shape()[1] * mxfp4::GROUP;
        Mxfp4View { blocks: blocks.bytes(), scales: scales.bytes(), n: *n, k, first: *first, step: *step }
    }

    /// Bytes of these rows.
    pub fn bytes(&self) -> usize {
        let values = self.outputs * self.scales.shape()[1] * mxfp4::GROUP;
        values / 2 + values / mxfp4::GROUP
    }

    fn unpacked<T>(&self, to: impl Fn(f32) -> T) -> Vec<T> {
        let view = self.view();
        let (mut row, mut out) = (vec![0.0; view.k], Vec::with_capacity(view.n * view.k));
        for output in 0..view.n {
            view.reference(output, &mut row);
            out.extend(row.iter().map(|value| to(*value)));
        }
        out
    }
}

impl Written {
    /// Outputs and inputs.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Written::Rows(view) => [view.shape()[0], view.shape()[1]],
            Written::Columns { view, outputs, .. } => [*outputs, view.shape()[0]],
            Written::Mxfp4(packed) => [packed.outputs, packed.scales.shape()[1] * mxfp4::GROUP],
        }
    }

    /// How many values it has.
    pub fn values(&self) -> usize {
        self.shape().iter().product()
    }

    /// Bytes of the checkpoint that it stands for.
    pub fn bytes(&self) -> usize {
        match self {
            Written::Rows(view) => view.length(),
            Written::Columns { view, .. } => self.values() * view.dtype().bits() as usize / 8,
            Written::Mxfp4(packed) => packed.bytes(),
        }
    }

    /// Are the values f32, which no other format holds exactly?
    pub fn is_f32(&self) -> bool {
        match self {
            Written::Rows(view) | Written::Columns { view, .. } => view.dtype() == Dtype::F32,
            Written::Mxfp4(_) => false,
        }
    }

    /// The values in f32, exactly, row by row.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Written::Rows(view) => to_f32(view),
            Written::Columns { view, outputs, first, step } => {
                transposed(&to_f32(view), view.shape()[0], [*outputs, *first, *step])
            }
            Written::Mxfp4(packed) => packed.unpacked(|value| value),
        }
    }

    /// The values in bf16, row by row, rounded to nearest even unless they are bf16 already. Those of MXFP4 are exact.
    pub fn to_bf16(&self, pool: &Pool) -> Cow<'_, [bf16]> {
        match self {
            Written::Rows(view) => to_bf16(pool, view),
            Written::Columns { view, outputs, first, step } => {
                transposed(&to_bf16(pool, view), view.shape()[0], [*outputs, *first, *step]).into()
            }
            Written::Mxfp4(packed) => packed.unpacked(bf16::from_f32).into(),
        }
    }

    /// Tells the system that the mapped pages are not needed any more.
    pub fn forget_pages(&self) {
        if let Written::Rows(view) = self {
            view.forget_pages();
        }
    }
}

/// Columns `first`, `first + step`, … of `of`, `[inputs, columns]`, as rows.
fn transposed<T: Copy>(of: &[T], inputs: usize, [outputs, first, step]: [usize; 3]) -> Vec<T> {
    let columns = of.len() / inputs.max(1);
    let column = |output: usize| (0..inputs).map(move |i| of[i * columns + first + output * step]);
    (0..outputs).flat_map(column).collect()
}
