//! Rows brought elsewhere: lookups, tokens to their experts, and experts' outputs back to tokens.

use super::launch::{Address, Launch};

const THREADS: u32 = 256;

/// The parameters of `gather_f32` and `gather_bf16`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Gather {
    /// Rows of `stride` values.
    pub x: Address,
    /// `[count]`: rows of x.
    pub rows: Address,
    /// `[count, width]`, f32.
    pub out: Address,
    /// Values from one row of x to the next.
    pub stride: u32,
    /// Values of a row, at most `stride`.
    pub width: u32,
}

impl Gather {
    /// Copies `count` rows; those of x are bf16 or f32.
    pub fn launch(self, count: u32, bf16: bool) -> Launch<Gather> {
        let kernel = if bf16 { "gather_bf16" } else { "gather_f32" };
        Launch { kernel, grid: grid(count, self.width), block: THREADS, shared: 0, parameters: self }
    }
}

/// The parameters of `narrow_rows`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Narrow {
    /// `[rows, width]`, f32.
    pub x: Address,
    /// `[rows, padded]`, bf16.
    pub out: Address,
    /// Values of a row of x.
    pub width: u32,
    /// Values of a row of out: a multiple of 4. Those behind `width` become zeros.
    pub padded: u32,
}

impl Narrow {
    /// Rounds `rows` rows to bf16, as [`Product`](super::matmul::Product) reads them.
    pub fn launch(self, rows: u32) -> Launch<Narrow> {
        let grid = grid(rows, self.padded.div_ceil(4));
        Launch { kernel: "narrow_rows", grid, block: THREADS, shared: 0, parameters: self }
    }
}

/// The parameters of `add_biases`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Biases {
    /// `[rows, width]`
    pub x: Address,
    /// `[rows]` addresses of `[width]`.
    pub biases: Address,
    /// Values of a row.
    pub width: u32,
}

impl Biases {
    /// Adds its bias to each of `rows` rows.
    pub fn launch(self, rows: u32) -> Launch<Biases> {
        let grid = grid(rows, self.width);
        Launch { kernel: "add_biases", grid, block: THREADS, shared: 0, parameters: self }
    }
}

/// The parameters of `fill_columns`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Fill {
    /// `[rows, width]`
    pub x: Address,
    /// Values of a row.
    pub width: u32,
    /// The first column that is filled; all behind it are.
    pub first: u32,
    /// What with.
    pub value: f32,
}

impl Fill {
    /// Fills the columns of `rows` rows.
    pub fn launch(self, rows: u32) -> Launch<Fill> {
        let grid = grid(rows, self.width - self.first);
        Launch { kernel: "fill_columns", grid, block: THREADS, shared: 0, parameters: self }
    }
}

/// The parameters of `combine`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Combine {
    /// `[choices, width]`: the experts' outputs.
    pub x: Address,
    /// `[tokens, per_token]`: rows of x.
    pub places: Address,
    /// `[tokens, per_token]`
    pub weights: Address,
    /// `[tokens, width]`
    pub out: Address,
    /// Experts of a token.
    pub per_token: u32,
    /// Values of a row.
    pub width: u32,
}

impl Combine {
    /// The weighted sums of `tokens` tokens.
    pub fn launch(self, tokens: u32) -> Launch<Combine> {
        Launch {
            kernel: "combine",
            grid: grid(tokens, self.width),
            block: THREADS,
            shared: 0,
            parameters: self,
        }
    }
}

/// The parameters of `dispatch`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Dispatch {
    /// `[choices]`: each choice's expert.
    pub ids: Address,
    /// `[experts + 1]`: where an expert's rows begin.
    pub offsets: Address,
    /// `[choices]`: the token that a row is of.
    pub order: Address,
    /// `[choices]`: the row of a choice.
    pub places: Address,
    /// Tokens · experts of a token.
    pub choices: u32,
    /// Experts of a token.
    pub per_token: u32,
    /// Experts.
    pub experts: u32,
}

impl Dispatch {
    /// Orders the choices by experts, those of one expert as they came.
    pub fn launch(self) -> Launch<Dispatch> {
        let grid = [self.experts.div_ceil(THREADS / 32), 1, 1];
        Launch { kernel: "dispatch", grid, block: THREADS, shared: 0, parameters: self }
    }
}

/// A block a row; a wide row has several.
fn grid(rows: u32, width: u32) -> [u32; 3] {
    [rows, width.div_ceil(4 * THREADS).max(1), 1]
}
