//! Root mean square norm.

use super::launch::{Address, Launch};

const THREADS: u32 = 256;

/// Most values of a row.
pub const MOST: usize = 4 * THREADS as usize * 16;

/// The parameters of `norm_f32` and `norm_bf16`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Norm {
    /// `[rows, width]`
    pub x: Address,
    /// `[width]`
    pub weight: Address,
    /// None, or `[rows, width]`: x is added to it, and what is normed is the sum.
    pub residual: Address,
    /// `[rows, width]`
    pub out: Address,
    /// Values of a row, at most [`MOST`].
    pub width: u32,
    /// Added to the mean square.
    pub eps: f32,
}

impl Norm {
    /// The norm of `rows` rows, in f32 or rounded to bf16.
    pub fn launch(self, rows: u32, bf16: bool) -> Launch<Norm> {
        Launch {
            kernel: if bf16 { "norm_bf16" } else { "norm_f32" },
            grid: [rows, 1, 1],
            block: THREADS,
            shared: 4 * (THREADS / 32) as usize,
            parameters: self,
        }
    }
}
