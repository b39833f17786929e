//! Rotary position embedding.

use super::launch::{Address, Launch};

const THREADS: u32 = 128;

/// The parameters of `rotary_half_split` and `rotary_interleaved`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Rotary {
    /// `[rows, heads, head_dim]`, turned in place.
    pub x: Address,
    /// `[positions, half]`, of [`Table`](crate::cpu::rope::Table).
    pub cosines: Address,
    /// `[positions, half]`
    pub sines: Address,
    /// `[rows]`
    pub positions: Address,
    /// Rows.
    pub rows: u32,
    /// Heads of a row.
    pub heads: u32,
    /// Values of a head.
    pub head_dim: u32,
    /// Pairs of a head that turn.
    pub half: u32,
}

impl Rotary {
    /// Turns pairs of neighbours, or of elements `half` apart.
    pub fn launch(self, interleaved: bool) -> Launch<Rotary> {
        Launch {
            kernel: if interleaved { "rotary_interleaved" } else { "rotary_half_split" },
            grid: [(self.heads * self.half).div_ceil(THREADS), self.rows.min(u16::MAX.into()), 1],
            block: THREADS,
            shared: 0,
            parameters: self,
        }
    }
}
