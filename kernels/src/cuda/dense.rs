//! Products in f32, for gates.

use super::launch::{Address, Launch};

/// Of a block.
const WARPS: u32 = 8;
/// Of a block at once.
const ROWS: u32 = 4;
/// Of a block.
const COLUMNS: u32 = 2;

/// The parameters of `dense_f32` and `dense_bf16`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Dense {
    /// `[rows, k]`, f32.
    pub x: Address,
    /// `[n, k]`
    pub w: Address,
    /// `[rows, n]`, f32.
    pub out: Address,
    /// Rows.
    pub rows: u32,
    /// Outputs.
    pub n: u32,
    /// Inputs.
    pub k: u32,
}

impl Dense {
    /// The product with a matrix of f32 or of bf16; x is not rounded.
    pub fn launch(self, bf16: bool) -> Launch<Dense> {
        Launch {
            kernel: if bf16 { "dense_bf16" } else { "dense_f32" },
            grid: [self.n.div_ceil(COLUMNS), self.rows.div_ceil(ROWS).min(u16::MAX.into()), 1],
            block: 32 * WARPS,
            shared: 4 * (WARPS * ROWS * COLUMNS) as usize,
            parameters: self,
        }
    }
}
