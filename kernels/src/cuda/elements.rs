//! Ops on one element at a time.

use super::launch::{Address, Launch};

const THREADS: u32 = 256;

/// The parameters of the kernels in `elements.cu`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Elements {
    /// `[count]`
    pub a: Address,
    /// `[count]`, a value a column or a value a row, as the op says.
    pub b: Address,
    /// `[count]`, may be `a`.
    pub out: Address,
    /// Elements.
    pub count: u64,
    /// Values of a row, where rows count.
    pub width: u32,
    /// The op's first number.
    pub alpha: f32,
    /// The op's second number.
    pub beta: f32,
}

/// What is computed of a and b.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `silu(a) · b`
    SiluMul,
    /// The same, rounded to bf16.
    SiluMulBf16,
    /// `(b + 1) · a · σ(alpha · a)` of a and b within the limit `beta`, as GPT-OSS has it.
    ClampedSwiglu,
    /// The same, rounded to bf16.
    ClampedSwigluBf16,
    /// `silu(a)`
    Silu,
    /// `a · σ(b)`
    SigmoidMul,
    /// `a + b`
    Add,
    /// `alpha · a + beta · b`
    Blend,
    /// `a + b[column]`
    AddToRows,
    /// `a · σ(b[row])`
    GateRows,
}

impl Elements {
    /// One op on all elements.
    pub fn launch(self, op: Op) -> Launch<Elements> {
        let kernel = match op {
            Op::SiluMul => "silu_mul_f32",
            Op::SiluMulBf16 => "silu_mul_bf16",
            Op::ClampedSwiglu => "clamped_swiglu_f32",
            Op::ClampedSwigluBf16 => "clamped_swiglu_bf16",
            Op::Silu => "silu",
            Op::SigmoidMul => "sigmoid_mul",
            Op::Add => "add",
            Op::Blend => "blend",
            Op::AddToRows => "add_to_rows",
            Op::GateRows => "gate_rows",
        };
        let blocks = self.count.div_ceil(4 * u64::from(THREADS)) as u32;
        Launch { kernel, grid: [blocks, 1, 1], block: THREADS, shared: 0, parameters: self }
    }
}
