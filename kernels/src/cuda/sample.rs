//! From logits to tokens.

use super::launch::{Address, Launch};

/// What the kernel writes where the largest logit is not a finite number.
pub const NO_TOKEN: u32 = u32::MAX;

const THREADS: u32 = 256;

/// How one row's token is drawn.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Rule {
    /// At 0 and below, the best token is taken.
    pub temperature: f32,
    /// Of what `top_k` leaves, the fewest tokens with this share of the weight.
    pub top_p: f32,
    /// Least weight beside the best token's.
    pub min_p: f32,
    /// Most tokens; 0 is all.
    pub top_k: u32,
    /// With `index`, all that the draw depends on.
    pub seed: u64,
    /// Tokens drawn before.
    pub index: u64,
}

/// The parameters of `sample`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Sample {
    /// `[rows, vocabulary]`
    pub logits: Address,
    /// `[rows]` of [`Rule`]
    pub rules: Address,
    /// `[rows]`, u32; [`NO_TOKEN`] where there is none.
    pub tokens: Address,
    /// Tokens that there are.
    pub vocabulary: u32,
}

/// Bytes of a block's shared memory.
const SHARED: usize = 256 * (8 + 4) + 8 * (THREADS as usize / 32 + 3);

impl Sample {
    /// A token for each of `rows` rows.
    pub fn launch(self, rows: u32) -> Launch<Sample> {
        let grid = [rows, 1, 1];
        Launch { kernel: "sample", grid, block: THREADS, shared: SHARED, parameters: self }
    }
}

/// The parameters of `best`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Best {
    /// `[rows, vocabulary]`
    pub logits: Address,
    /// `[rows]`, u32: of the largest value the token, the lowest of equals.
    pub tokens: Address,
    /// `[rows]`: the largest value. NaN is it only if all are.
    pub values: Address,
    /// Tokens that there are.
    pub vocabulary: u32,
}

impl Best {
    /// The best token of each of `rows` rows.
    pub fn launch(self, rows: u32) -> Launch<Best> {
        let grid = [rows, 1, 1];
        Launch { kernel: "best", grid, block: THREADS, shared: SHARED, parameters: self }
    }
}
