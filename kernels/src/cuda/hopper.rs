//! The products of [`matmul`](super::matmul) by the instructions that Hopper has for them.

use super::device::Device;
use super::launch::Launch;
use super::matmul::{Format, Product, Tiles};

/// Bytes of shared memory that a block may have there.
pub const MOST_SHARED: i32 = 227 << 10;

/// How a product is cut into blocks; a row's bits do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tile {
    /// 8 rows, with 16 rows of matrices: for decoding few.
    Eight,
    /// 16 rows, with 32 rows of matrices: for decoding more.
    Sixteen,
    /// 128 rows with as many of matrices, 192 where these are bf16: for prefills.
    Large,
}

impl Tile {
    /// For so many rows, shared out among so many matrices.
    pub fn of(tiles: Tiles, rows: u32, matrices: u32) -> Tile {
        match tiles {
            Tiles::Large => Tile::Large,
            Tiles::Narrow if rows > 8 * matrices => Tile::Sixteen,
            Tiles::Narrow => Tile::Eight,
        }
    }
}

impl Product {
    /// The products by the best kernels that a device has for them.
    pub fn launch_on(
        self,
        device: &impl Device,
        format: Format,
        pair: bool,
        tiles: Tiles,
    ) -> Launch<Product> {
        match device.is_hopper() {
            true => launch(self, format, pair, Tile::of(tiles, self.rows, self.experts)),
            false => self.launch(format, pair, tiles),
        }
    }
}

/// The products of one matrix a row, or with `pair` the activation of two, by the kernels in `hopper.cu`.
pub fn launch(product: Product, format: Format, pair: bool, tile: Tile) -> Launch<Product> {
    let (names, bits) = match format {
        Format::Bf16 => (NAMES[0], 16),
        Format::Int8 => (NAMES[1], 8),
        Format::Fp8 => (NAMES[2], 8),
        Format::Int4 => (NAMES[3], 4),
        Format::Mxfp4 => (NAMES[4], 4),
    };
    let plain = format == Format::Bf16;
    // Rows of x, warpgroups, values along k of a stage, stages.
    let (which, height, warpgroups, depth, stages) = match (tile, bits) {
        (Tile::Eight, 16) => (0, 8, 1, 64, 6),
        (Tile::Eight, 8) => (0, 8, 1, 128, 4),
        (Tile::Eight, _) => (0, 8, 1, 128, 8),
        (Tile::Sixteen, 16) => (1, 16, 2, 64, 4),
        (Tile::Sixteen, 8) => (1, 16, 2, 64, 5),
        (Tile::Sixteen, _) => (1, 16, 2, 128, 5),
        (Tile::Large, 16) => (2, 192, 2, 64, 5),
        (Tile::Large, _) => (2, 128, 2, 64, 6),
    };
    let split = tile != Tile::Large;
    // Of the matrices in a block, and of x as a tensor core sees them.
    let (left, right) = (64 * warpgroups, if split { 4 * height } else { height });
    let width = left / if split { 4 } else { 1 } / if pair { 2 } else { 1 };
    // A scale for each 32 values at most, in words; sums on their way out.
    let scales = if plain { 1 } else { left * depth / 32 };
    let sums = if plain && !split { 1 } else { height * (left + 4) };
    let stage = depth * right * 2 + depth * left * bits / 8 + 4 * scales;
    // Each expert may have one tile that is not full.
    let experts = if product.offsets == 0 { 0 } else { product.experts.min(product.rows) };
    Launch {
        kernel: names[usize::from(pair) * 3 + which],
        grid: [product.out_width.div_ceil(width), product.rows.div_ceil(height) + experts, 1],
        block: 128 * warpgroups,
        shared: (stages * stage + 4 * sums + 4 * height) as usize,
        parameters: product,
    }
}

const NAMES: [[&str; 6]; 5] = [
    [
        "hopper_bf16_8",
        "hopper_bf16_16",
        "hopper_bf16_large",
        "hopper_bf16_pair_8",
        "hopper_bf16_pair_16",
        "hopper_bf16_pair_large",
    ],
    [
        "hopper_int8_8",
        "hopper_int8_16",
        "hopper_int8_large",
        "hopper_int8_pair_8",
        "hopper_int8_pair_16",
        "hopper_int8_pair_large",
    ],
    [
        "hopper_fp8_8",
        "hopper_fp8_16",
        "hopper_fp8_large",
        "hopper_fp8_pair_8",
        "hopper_fp8_pair_16",
        "hopper_fp8_pair_large",
    ],
    [
        "hopper_int4_8",
        "hopper_int4_16",
        "hopper_int4_large",
        "hopper_int4_pair_8",
        "hopper_int4_pair_16",
        "hopper_int4_pair_large",
    ],
    [
        "hopper_mxfp4_8",
        "hopper_mxfp4_16",
        "hopper_mxfp4_large",
        "hopper_mxfp4_pair_8",
        "hopper_mxfp4_pair_16",
        "hopper_mxfp4_pair_large",
    ],
];
