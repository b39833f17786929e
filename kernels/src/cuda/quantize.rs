//! Weights in bf16 on their way to int8 and int4, in the device's memory.

use super::launch::{Address, Launch};
use super::matmul::Format;
use crate::cpu::{int4, quant};

const THREADS: u32 = 256;
/// Values of a thread.
const EACH: u64 = 8;

/// The parameters of the kernels in `quantize.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Quantize {
    /// `[rows, k]`, bf16, aligned to 16 bytes.
    pub x: Address,
    /// `[rows, padded]`: codes as the products of the format read them.
    pub values: Address,
    /// `[rows, ceil(k / group)]`, f32.
    pub scales: Address,
    /// Rows.
    pub rows: u32,
    /// Values of a row.
    pub k: u32,
    /// k up to the next multiple of 32; zeros are put behind it.
    pub padded: u32,
}

impl Quantize {
    /// The same codes and scales as [`quant::reference`] makes, or [`int4::reference`]; none for other formats, which
    /// nothing is quantized to.
    pub fn launch(self, format: Format) -> Option<Launch<Quantize>> {
        let (kernel, group) = match format {
            Format::Int8 => ("quantize_int8", quant::GROUP),
            Format::Int4 => ("quantize_int4", int4::GROUP),
            Format::Bf16 | Format::Fp8 | Format::Mxfp4 => return None,
        };
        let threads = u64::from(self.rows) * u64::from(self.k.next_multiple_of(group as u32)).div_ceil(EACH);
        let blocks = threads.div_ceil(THREADS.into()) as u32;
        Some(Launch { kernel, grid: [blocks, 1, 1], block: THREADS, shared: 0, parameters: self })
    }
}
