//! From the number formats of a checkpoint to those that are computed with.
//!
//! BF16 stays as it is, F32 too. F16 is rounded to BF16 (three bits of its precision are lost; its range fits). FP8 times
//! its scale is rounded to BF16, for the slow loop too: so does the script that comes with the checkpoints that have it.
//! With [`Quantization::Int8`](coterie_api::launch::Quantization) each matrix goes to int8 on its own, and the mapped
//! pages that it came from are given back at once, so that a load never holds the weights twice.

use crate::weights::safetensors::Dtype;
use crate::weights::shard::TensorView;
use crate::weights::written::Written;
use coterie_kernels::cpu::pool::Pool;
use coterie_kernels::cpu::quant::Int8;
use coterie_kernels::cpu::random;
use half::{bf16, f16};
use std::borrow::Cow;

const _: () = assert!(cfg!(target_endian = "little"), "safetensors files are little-endian");

/// The view's values as `T`, borrowed if they are aligned for it.
pub fn values<T: bytemuck::Pod>(view: &TensorView) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(view.bytes()) {
        Ok(values) => Cow::Borrowed(values),
        Err(_) => {
            let size = size_of::<T>();
            Cow::Owned(view.bytes().chunks_exact(size).map(bytemuck::pod_read_unaligned).collect())
        }
    }
}

/// The values of a tensor that no file has.
fn made(view: &TensorView) -> Option<Vec<bf16>> {
    let (made, first) = view.how_made()?;
    let numbers = first..first + view.values() as u64;
    Some(numbers.map(|number| random::value(made.seed, number, made.scale)).collect())
}

/// The values in f32; exactly, but for fp8.
pub fn to_f32(view: &TensorView) -> Vec<f32> {
    if let Some(values) = made(view) {
        return values.iter().map(|value| value.to_f32()).collect();
    }
    match view.dtype() {
        Dtype::Bf16 => values::<bf16>(view).iter().map(|v| v.to_f32()).collect(),
        Dtype::F16 => values::<f16>(view).iter().map(|v| v.to_f32()).collect(),
        Dtype::Fp8 => to_bf16(&Pool::new(1), view).iter().map(|v| v.to_f32()).collect(),
        _ => values::<f32>(view).into_owned(),
    }
}

/// The values in bf16, rounded to nearest even unless they are bf16 already.
pub fn to_bf16<'a>(pool: &Pool, view: &'a TensorView) -> Cow<'a, [bf16]> {
    if let Some(values) = made(view) {
        return Cow::Owned(values);
    }
    if let Some(scales) = view.scales() {
        return Cow::Owned(scales.to_bf16(pool, view.bytes()));
    }
    match view.dtype() {
        Dtype::Bf16 => values(view),
        Dtype::F16 => values::<f16>(view).iter().map(|v| bf16::from_f32(v.to_f32())).collect(),
        _ => values::<f32>(view).iter().map(|&v| bf16::from_f32(v)).collect(),
    }
}

/// The matrix in int8, made on all threads; the file's pages are given back.
pub fn to_int8(pool: &Pool, written: &Written) -> Int8 {
    let [outputs, inputs] = written.shape();
    let quantized = Int8::quantize_bf16(pool, &written.to_bf16(pool), outputs, inputs);
    written.forget_pages();
    quantized
}
