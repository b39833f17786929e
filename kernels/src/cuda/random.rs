//! Random weights, made where they stay.

use super::launch::{Address, Launch};

const THREADS: u32 = 256;
/// Values of a thread.
const EACH: u64 = 4;

/// The parameters of `random_values`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Random {
    /// `[count]`, bf16, aligned to 8 bytes.
    pub out: Address,
    /// Of all values.
    pub seed: u64,
    /// The number of the first value.
    pub first: u64,
    /// Values.
    pub count: u64,
    /// Values lie within ±2²³ times this.
    pub scale: f32,
}

impl Random {
    /// The values that [`random::value`](crate::cpu::random::value) has for the numbers from `first` on.
    pub fn launch(self) -> Launch<Random> {
        let blocks = self.count.div_ceil(EACH * u64::from(THREADS)) as u32;
        Launch { kernel: "random_values", grid: [blocks, 1, 1], block: THREADS, shared: 0, parameters: self }
    }
}
