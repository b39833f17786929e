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

impl Written {
    /// Outputs and inputs.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Written::Rows(view) => [view.shape()[0], view.shape()[1]],
            Written::Columns { view, outputs, .. } => [*outputs, view.shape()[0]],
            Written::Mxfp4 { scales, outputs, .. } => [*outputs, scales.shape()[1] * mxfp4::GROUP],
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
            Written::Mxfp4 { .. } => self.values() / 2 + self.values() / mxfp4::GROUP,
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
    pub fn to_bf16(&self, pool: &Pool) -> Cow<'_, [bf16]> {
        match self {
            Written::Rows(view) => to_bf16(pool, view),
            Written::Columns { view, .. } => self.transposed(&to_bf16(pool, view)).into(),
            Written::Mxfp4 { .. } => self.unpacked(bf16::from_f32).into(),
        }
    }

    /// The matrix as it lies in the checkpoint, if that is MXFP4.
    pub fn mxfp4(&self) -> Option<Mxfp4View<'_>> {
        let Written::Mxfp4 { blocks, scales, outputs, first, step } = self else { return None };
        let (n, k) = (*outputs, scales.shape()[1] * mxfp4::GROUP);
        let (blocks, scales) = (blocks.bytes(), scales.bytes());
        Some(Mxfp4View { blocks, scales, n, k, first: *first, step: *step })
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
        let Some(view) = self.mxfp4() else { return Vec::new() };
        let (mut row, mut out) = (vec![0.0; view.k], Vec::with_capacity(self.values()));
        for output in 0..view.n {
            view.reference(output, &mut row);
            out.extend(row.iter().map(|value| to(*value)));
        }
        out
    }
}
