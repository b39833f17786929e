//! Products of rows with the matrix of their expert, or with one matrix, on tensor cores.

use super::launch::{Address, Launch};

/// What a matrix is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As it is.
    Bf16,
    /// Whole numbers, with an f32 scale a group.
    Int8,
    /// Whole numbers from -8 to 7 kept as 0 to 15, two a byte, the first in the lower half; an f32 scale a group.
    Int4,
    /// E4M3, with an f32 scale a block.
    Fp8,
    /// E2M1 as [`Mxfp4View`](crate::cpu::mxfp4::Mxfp4View) has it.
    Mxfp4,
}

impl Format {
    /// Bits of a value, without its part of a scale.
    pub fn bits(self) -> usize {
        match self {
            Format::Bf16 => 16,
            Format::Int8 | Format::Fp8 => 8,
            Format::Int4 | Format::Mxfp4 => 4,
        }
    }
}

/// How a product is cut into blocks; a row's bits do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiles {
    /// 16 rows: for decoding, where weights are read once and memory is the bound.
    Narrow,
    /// 128 rows: for prefills.
    Large,
}

/// The parameters of the kernels in `matmul.cu`. Of a pair, arrays of matrices have all gates and then all ups.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Product {
    /// `[.., k]`, bf16.
    pub x: Address,
    /// None, or `[rows]`: the row of x that a row is of.
    pub order: Address,
    /// None, or `[experts + 1]`: where an expert's rows begin.
    pub offsets: Address,
    /// `[experts]` addresses of matrices `[n, k]`.
    pub weights: Address,
    /// As many, of `[ceil(n / scale_rows), ceil(k / group)]`; none for bf16.
    pub scales: Address,
    /// None, or as many, of `[n]`.
    pub biases: Address,
    /// `[rows, out_width]`, f32; of a pair bf16.
    pub out: Address,
    /// Rows.
    pub rows: u32,
    /// Matrices, or pairs of them; 1 without offsets.
    pub experts: u32,
    /// Outputs.
    pub n: u32,
    /// Inputs, a multiple of 32.
    pub k: u32,
    /// n, or up to the next multiple of 32: zeros are put behind it.
    pub out_width: u32,
    /// Rows of a matrix's memory for one of the matrix.
    pub row_step: u32,
    /// Values along k that share a scale, a multiple of 32.
    pub group: u32,
    /// Rows of a matrix's memory that share a scale.
    pub scale_rows: u32,
    /// The activation behind a pair: not 0 for the clamped SwiGLU of GPT-OSS, 0 for SiLU.
    pub clamped: u32,
    /// The clamped SwiGLU's.
    pub alpha: f32,
    /// The clamped SwiGLU's.
    pub limit: f32,
}

impl Product {
    /// The products of one matrix a row, or with `pair` the activation of two.
    pub fn launch(self, format: Format, pair: bool, tiles: Tiles) -> Launch<Product> {
        let names = match format {
            Format::Bf16 => &NAMES[0],
            Format::Int8 => &NAMES[1],
            Format::Fp8 => &NAMES[2],
            Format::Int4 => &NAMES[3],
            Format::Mxfp4 => &NAMES[4],
        };
        let Cut { height, width, shared } = match tiles {
            Tiles::Narrow => narrow(format.bits() as u32, pair, self.k),
            Tiles::Large => large(format.bits() as u32, pair),
        };
        // Each expert may have one tile that is not full.
        let of_rows =
            self.rows.div_ceil(height) + if self.offsets == 0 { 0 } else { self.experts.min(self.rows) };
        let of_columns = self.out_width.div_ceil(width);
        Launch {
            kernel: names[usize::from(pair) * 2 + usize::from(tiles == Tiles::Large)],
            grid: match tiles {
                // Blocks that read the same weights are neighbours, so that memory is read once for them.
                Tiles::Narrow => [of_rows, of_columns, 1],
                Tiles::Large => [of_columns, of_rows, 1],
            },
            block: 256,
            shared,
            parameters: self,
        }
    }
}

/// A block's rows, columns and bytes of shared memory.
struct Cut {
    height: u32,
    width: u32,
    shared: usize,
}

/// As `narrow.cuh` has it: a warp for each of 8 parts of k.
fn narrow(bits: u32, pair: bool, k: u32) -> Cut {
    let columns = if bits == 4 { 32 } else { 16 };
    let values = k.div_ceil(64).div_ceil(8) * 64;
    let slots = values.div_ceil(if bits == 16 { 64 } else { 128 }).min(4) as usize;
    let sums = 16 * (columns + 8) * 4;
    Cut { height: 16, width: columns >> u32::from(pair), shared: 8 * (slots * 2048).max(sums as usize) }
}

/// As `large.cuh` has it: three stages of 64 values along k.
fn large(bits: u32, pair: bool) -> Cut {
    let stage = 128 * 64 * 2 + 128 * 64 * bits as usize / 8;
    let scales = if bits == 16 { 16 } else { 2 * 2 * 128 * 4 };
    Cut { height: 128, width: 128 >> u32::from(pair), shared: 3 * stage + scales + 4 * 128 }
}

const NAMES: [[&str; 4]; 5] = [
    ["matmul_bf16_narrow", "matmul_bf16_large", "matmul_bf16_pair_narrow", "matmul_bf16_pair_large"],
    ["matmul_int8_narrow", "matmul_int8_large", "matmul_int8_pair_narrow", "matmul_int8_pair_large"],
    ["matmul_fp8_narrow", "matmul_fp8_large", "matmul_fp8_pair_narrow", "matmul_fp8_pair_large"],
    ["matmul_int4_narrow", "matmul_int4_large", "matmul_int4_pair_narrow", "matmul_int4_pair_large"],
    ["matmul_mxfp4_narrow", "matmul_mxfp4_large", "matmul_mxfp4_pair_narrow", "matmul_mxfp4_pair_large"],
];
