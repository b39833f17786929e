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
        let (height, width, stages, block) = match (tiles, pair) {
            (Tiles::Narrow, false) => (16, 64, 4, 128),
            (Tiles::Narrow, true) => (16, 32, 4, 128),
            (Tiles::Large, false) => (128, 128, 3, 256),
            (Tiles::Large, true) => (128, 64, 3, 256),
        };
        let (name, bits) = match format {
            Format::Bf16 => (NAMES[0], 16),
            Format::Int8 => (NAMES[1], 8),
            Format::Fp8 => (NAMES[2], 8),
            Format::Int4 => (NAMES[3], 4),
            Format::Mxfp4 => (NAMES[4], 4),
        };
        // Each expert may have one tile that is not full.
        let rows =
            self.rows.div_ceil(height) + if self.offsets == 0 { 0 } else { self.experts.min(self.rows) };
        let of_w = width as usize * (1 + usize::from(pair)) * 64 * bits / 8;
        Launch {
            kernel: name[usize::from(pair) * 2 + usize::from(tiles == Tiles::Large)],
            grid: [self.n.div_ceil(width), rows, 1],
            block,
            shared: stages * (height as usize * 128 + of_w) + 4 * height as usize,
            parameters: self,
        }
    }
}

const NAMES: [[&str; 4]; 5] = [
    ["matmul_bf16_narrow", "matmul_bf16_large", "matmul_bf16_pair_narrow", "matmul_bf16_pair_large"],
    ["matmul_int8_narrow", "matmul_int8_large", "matmul_int8_pair_narrow", "matmul_int8_pair_large"],
    ["matmul_fp8_narrow", "matmul_fp8_large", "matmul_fp8_pair_narrow", "matmul_fp8_pair_large"],
    ["matmul_int4_narrow", "matmul_int4_large", "matmul_int4_pair_narrow", "matmul_int4_pair_large"],
    ["matmul_mxfp4_narrow", "matmul_mxfp4_large", "matmul_mxfp4_pair_narrow", "matmul_mxfp4_pair_large"],
];
