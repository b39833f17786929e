//! Rows made of heads: cut, put together, and made wider.

use super::launch::{Address, Launch};

const THREADS: u32 = 256;

/// The parameters of `copy_heads`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Heads {
    /// `[heads, x_width]`
    pub x: Address,
    /// `[heads, out_width]`
    pub out: Address,
    /// Heads of all rows.
    pub heads: u64,
    /// Values of a head of x.
    pub x_width: u32,
    /// Where in it the values begin.
    pub x_first: u32,
    /// Values of a head of out.
    pub out_width: u32,
    /// Where in it they are put.
    pub out_first: u32,
    /// Values of a head that are copied.
    pub count: u32,
    /// Zeros behind them.
    pub zeros: u32,
}

impl Heads {
    /// Copies the values of every head.
    pub fn launch(self) -> Launch<Heads> {
        let values = self.heads * u64::from(self.count + self.zeros);
        let grid = [values.div_ceil(THREADS.into()) as u32, 1, 1];
        Launch { kernel: "copy_heads", grid, block: THREADS, shared: 0, parameters: self }
    }
}
