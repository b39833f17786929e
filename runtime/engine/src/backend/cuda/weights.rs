//! Weights in the device's memory, in the format in which kernels read them.

use super::Cuda;
use crate::load_error::LoadError;
use crate::weights::fp8::Fp8Blocks;
use crate::weights::safetensors::Dtype;
use crate::weights::shard::TensorView;
use crate::weights::written::{Packed, Written};
use crate::weights::{Role, Storage};
use bytemuck::Pod;
use coterie_api::launch::Quantization;
use coterie_kernels::cpu::int4::GROUP as INT4_GROUP;
use coterie_kernels::cpu::mxfp4;
use coterie_kernels::cpu::quant::GROUP as INT8_GROUP;
use coterie_kernels::cuda::device::{Device, Memory};
use coterie_kernels::cuda::launch::Address;
use coterie_kernels::cuda::matmul::{Format, Product};
use coterie_kernels::cuda::quantize::Quantize;
use half::bf16;
use std::borrow::Cow;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// Values along k that products read at once: rows are made that much longer by zeros, which change no sum.
pub(super) const STEP: usize = 32;

/// Rows that wait on the device to be quantized, bytes, unless one row has more.
pub(super) const STAGE: usize = 8 << 20;

/// Parts of a matrix's memory begin at multiples of this, bytes.
const ALIGNED: usize = 256;

/// A weight matrix `[outputs, inputs]`.
pub struct CudaMatrix<D: Device> {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) form: Form,
    /// The addresses of values and of scales, then scales, then values.
    memory: Memory<D>,
    scales_at: usize,
    values_at: usize,
}

/// How a matrix is multiplied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    /// With rows in f32.
    Gate {
        /// Is it of bf16, or of f32?
        bf16: bool,
    },
    /// With rows in bf16.
    Product {
        format: Format,
        /// Values along k, and rows, that share a scale.
        group: usize,
        scale_rows: usize,
    },
}

impl<D: Device> CudaMatrix<D> {
    pub(super) fn values(&self) -> Address {
        self.memory.address() + self.values_at as Address
    }

    pub(super) fn scales(&self) -> Address {
        self.memory.address() + self.scales_at as Address
    }

    /// An array of one address, that of the values; behind it that of the scales.
    pub(super) fn addresses(&self) -> [Address; 2] {
        [self.memory.address(), self.memory.address() + size_of::<Address>() as Address]
    }

    pub(super) fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// What a product with it, or with matrices of its form, says of them, and their format. Where rows and matrices are
    /// is still to be said.
    pub(super) fn product(&self) -> (Product, Format) {
        let Form::Product { format, group, scale_rows } = self.form else {
            unreachable!("a gate is no expert and no head")
        };
        let product = Product {
            x: 0,
            order: 0,
            offsets: 0,
            weights: 0,
            scales: 0,
            biases: 0,
            out: 0,
            rows: 0,
            experts: 0,
            n: self.outputs as u32,
            k: self.inputs.next_multiple_of(STEP) as u32,
            out_width: self.outputs as u32,
            row_step: 1,
            group: group as u32,
            scale_rows: scale_rows as u32,
            clamped: 0,
            alpha: 0.0,
            limit: 0.0,
        };
        (product, format)
    }
}

/// A vector of f32.
pub struct CudaVector<D: Device> {
    pub(super) memory: Memory<D>,
    pub(super) length: usize,
}

/// Rows of `bytes` bytes, each made `padded` long.
fn padded(rows: &[u8], bytes: usize, padded: usize) -> Cow<'_, [u8]> {
    if bytes == padded || rows.is_empty() {
        return rows.into();
    }
    let mut out = vec![0; rows.len() / bytes * padded];
    for (out, row) in out.chunks_exact_mut(padded).zip(rows.chunks_exact(bytes)) {
        out[..bytes].copy_from_slice(row);
    }
    out.into()
}

impl<D: Device> Cuda<D> {
    fn hold<V: Pod, S: Pod>(
        &self,
        [outputs, inputs]: [usize; 2],
        form: Form,
        values: &[V],
        scales: &[S],
    ) -> Result<CudaMatrix<D>, LoadError> {
        let values: &[u8] = bytemuck::cast_slice(values);
        let scales: &[u8] = bytemuck::cast_slice(scales);
        let row = values.len() / outputs;
        let values = match form {
            Form::Gate { .. } => Cow::Borrowed(values),
            Form::Product { .. } => padded(values, row, row * inputs.next_multiple_of(STEP) / inputs),
        };
        let matrix = self.reserve([outputs, inputs], form, values.len(), scales.len())?;
        matrix.memory.write(matrix.scales_at, scales)?;
        matrix.memory.write(matrix.values_at, &values)?;
        Ok(matrix)
    }

    /// A matrix whose values are held as they lie in the file, or none where they are not neighbours there as products read
    /// them. `look` sees all of them.
    fn streamed<S: Pod>(
        &self,
        written: &Written,
        form: Form,
        dtype: Dtype,
        scales: &[S],
        look: impl Fn(&[u8]) + Sync,
    ) -> Result<Option<CudaMatrix<D>>, LoadError> {
        let shape @ [_, inputs] = written.shape();
        let whole = matches!(form, Form::Gate { .. }) || inputs.is_multiple_of(STEP);
        let view = match written {
            Written::Rows(view) if whole && view.dtype() == dtype => view,
            _ => return Ok(None),
        };
        let scales: &[u8] = bytemuck::cast_slice(scales);
        let matrix = self.reserve(shape, form, view.length(), scales.len())?;
        matrix.memory.write(matrix.scales_at, scales)?;
        self.upload(view, 0..view.length(), &matrix.memory, matrix.values_at, look)?;
        Ok(Some(matrix))
    }

    /// A matrix whose codes and scales the device makes: rows in bf16 come to it piece after piece.
    fn quantized(&self, written: &Written, format: Format, group: usize) -> Result<CudaMatrix<D>, LoadError> {
        let shape @ [outputs, inputs] = written.shape();
        let padded = inputs.next_multiple_of(STEP);
        let values = outputs * padded * format.bits() / 8;
        let scales = outputs * inputs.div_ceil(group) * size_of::<f32>();
        let form = Form::Product { format, group, scale_rows: 1 };
        let matrix = self.reserve(shape, form, values, scales)?;
        let row = inputs * size_of::<bf16>();
        let at_once = (STAGE / row).clamp(1, outputs);
        let stage = self.spare.take(at_once * row);
        let view = match written {
            Written::Rows(view) if view.dtype() == Dtype::Bf16 => Ok(view),
            _ => Err(written.to_bf16(&self.pool)),
        };
        for first in (0..outputs).step_by(at_once) {
            let rows = at_once.min(outputs - first);
            let bytes = first * row..(first + rows) * row;
            match &view {
                Ok(view) => self.upload(view, bytes, stage.memory(), 0, |_| {})?,
                Err(values) => stage.memory().write(0, &bytemuck::cast_slice(values)[bytes])?,
            }
            let quantize = Quantize {
                x: stage.address(),
                values: matrix.values() + (first * padded * format.bits() / 8) as Address,
                scales: matrix.scales() + (first * inputs.div_ceil(group) * size_of::<f32>()) as Address,
                rows: rows as u32,
                k: inputs as u32,
                padded: padded as u32,
            };
            self.launch(&quantize.launch(format).expect("a matrix is quantized to int8 or int4"));
        }
        Ok(matrix)
    }

    /// Memory for a matrix whose values and scales take so many bytes.
    fn reserve(
        &self,
        [outputs, inputs]: [usize; 2],
        form: Form,
        values: usize,
        scales: usize,
    ) -> Result<CudaMatrix<D>, LoadError> {
        let scales_at = ALIGNED;
        let values_at = scales_at + scales.next_multiple_of(ALIGNED);
        let memory = Memory::new(&self.device, values_at + values)?;
        let matrix = CudaMatrix { outputs, inputs, form, memory, scales_at, values_at };
        matrix.memory.write(0, bytemuck::cast_slice(&[matrix.values(), matrix.scales()]))?;
        Ok(matrix)
    }

    /// A matrix that is multiplied as it is, as far as there is a kernel for its format: f32 is rounded to bf16.
    fn plain(&self, written: &Written) -> Result<CudaMatrix<D>, LoadError> {
        match written {
            Written::Mxfp4(packed) => self.mxfp4(packed),
            Written::Rows(view) => match view.fp8_blocks() {
                Some(blocks) if blocks.size[1].is_multiple_of(STEP) => self.fp8(written, view, &blocks),
                _ => self.bf16(written),
            },
            _ => self.bf16(written),
        }
    }

    /// A NaN stays one in bf16 only.
    fn fp8(
        &self,
        written: &Written,
        view: &TensorView,
        Fp8Blocks { size: [scale_rows, group], scales }: &Fp8Blocks,
    ) -> Result<CudaMatrix<D>, LoadError> {
        let form = Form::Product { format: Format::Fp8, group: *group, scale_rows: *scale_rows };
        let broken = AtomicBool::new(false);
        let look = |codes: &[u8]| {
            if codes.iter().any(|code| code & 0x7f == 0x7f) {
                broken.store(true, Relaxed);
            }
        };
        let streamed = self.streamed(written, form, Dtype::Fp8, scales, look)?;
        if streamed.is_none() {
            look(view.bytes());
        }
        match (broken.into_inner(), streamed) {
            (true, _) => self.bf16(written),
            (false, Some(matrix)) => Ok(matrix),
            (false, None) => self.hold(written.shape(), form, view.bytes(), scales),
        }
    }

    fn bf16(&self, written: &Written) -> Result<CudaMatrix<D>, LoadError> {
        let form = Form::Product { format: Format::Bf16, group: STEP, scale_rows: 1 };
        if let Some(matrix) = self.streamed::<u8>(written, form, Dtype::Bf16, &[], |_| {})? {
            return Ok(matrix);
        }
        self.hold::<_, u8>(written.shape(), form, &written.to_bf16(&self.pool), &[])
    }

    fn mxfp4(&self, packed: &Packed) -> Result<CudaMatrix<D>, LoadError> {
        let Packed { blocks, scales, outputs, first, step } = packed;
        let groups = scales.shape()[1];
        let rows = |of: &[u8], row: usize| {
            let mut rows = Vec::with_capacity(outputs * row);
            (0..*outputs).for_each(|i| rows.extend_from_slice(&of[(first + i * step) * row..][..row]));
            rows
        };
        let values = rows(blocks.bytes(), groups * mxfp4::GROUP / 2);
        let form = Form::Product { format: Format::Mxfp4, group: mxfp4::GROUP, scale_rows: 1 };
        self.hold([*outputs, groups * mxfp4::GROUP], form, &values, &rows(scales.bytes(), groups))
    }

    fn gate(&self, written: &Written) -> Result<CudaMatrix<D>, LoadError> {
        match written.is_f32() {
            true => self.hold::<_, u8>(written.shape(), Form::Gate { bf16: false }, &written.to_f32(), &[]),
            false => {
                let form = Form::Gate { bf16: true };
                if let Some(matrix) = self.streamed::<u8>(written, form, Dtype::Bf16, &[], |_| {})? {
                    return Ok(matrix);
                }
                let values = written.to_bf16(&self.pool);
                self.hold::<_, u8>(written.shape(), form, &values, &[])
            }
        }
    }
}

impl<D: Device> Storage for Cuda<D> {
    type Matrix = CudaMatrix<D>;
    type Vector = CudaVector<D>;

    fn matrix(
        &self,
        written: Written,
        role: Role,
        quantization: Quantization,
    ) -> Result<CudaMatrix<D>, LoadError> {
        let matrix = match (role, quantization) {
            (Role::Gate, _) => self.gate(&written),
            (Role::Kept, _) => self.bf16(&written),
            (Role::Dense | Role::Expert, Quantization::None) => self.plain(&written),
            (Role::Dense | Role::Expert, Quantization::Int8) => {
                self.quantized(&written, Format::Int8, INT8_GROUP)
            }
            (Role::Dense | Role::Expert, Quantization::Int4) => {
                self.quantized(&written, Format::Int4, INT4_GROUP)
            }
        };
        written.forget_pages();
        matrix
    }

    fn vector(&self, written: Written, _: Role) -> Result<CudaVector<D>, LoadError> {
        let values = written.to_f32();
        let memory = Memory::new(&self.device, size_of_val(&values[..]))?;
        memory.write(0, bytemuck::cast_slice(&values))?;
        Ok(CudaVector { memory, length: values.len() })
    }
}
