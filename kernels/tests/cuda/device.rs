//! The ops of the cases by the kernels of `cu/`.

use coterie_kernels::cpu::matmul::Matrix;
use coterie_kernels::cpu::rope::Table;
use coterie_kernels::cuda::dense::Dense;
use coterie_kernels::cuda::elements::{Elements, Op};
use coterie_kernels::cuda::gate::Gate;
use coterie_kernels::cuda::launch::Address;
use coterie_kernels::cuda::norm::{self, Norm};
use coterie_kernels::cuda::rotary::Rotary;
use coterie_kernels::cuda::rows::{Combine, Gather};
use coterie_kernels::gate::Rule;
use half::bf16;

use super::experts::{Experts, Weights};
use super::machine::Machine;
use super::memory::Memory;
use crate::ops::device::{Answer, Device, chosen};
use crate::ops::{attention, latent, lightning};

/// Numbers that nobody has written yet.
pub fn unwritten(length: usize) -> Memory<f32> {
    Memory::of(&vec![f32::NAN; length])
}

fn exactly(out: &Memory<f32>) -> Answer {
    Some((out.values(), 0.0))
}

impl Machine {
    fn elements(&self, op: Op, a: &[f32], b: &[f32], width: usize, [alpha, beta]: [f32; 2]) -> Answer {
        let (a_memory, b_memory, out) = (Memory::of(a), Memory::of(b), unwritten(a.len()));
        let elements = Elements {
            a: a_memory.address(),
            b: b_memory.address(),
            out: out.address(),
            count: a.len() as u64,
            width: width as u32,
            alpha,
            beta,
        };
        self.launch(&elements.launch(op));
        exactly(&out)
    }
}

impl Machine {
    /// With f32 weights, and with the same rounded to bf16 and then widened, which must be one.
    fn dense(&self, x: &[f32], w: &[f32], [m, n, k]: [usize; 3]) -> Answer {
        let run = |w: Address, bf16: bool| {
            let (x, out) = (Memory::of(x), unwritten(m * n));
            let [rows, n, k] = [m, n, k].map(|size| size as u32);
            let dense = Dense { x: x.address(), w, out: out.address(), rows, n, k };
            self.launch(&dense.launch(bf16));
            out.values()
        };
        let rounded: Vec<bf16> = w.iter().map(|w| bf16::from_f32(*w)).collect();
        let widened: Vec<f32> = rounded.iter().map(|w| w.to_f32()).collect();
        let (rounded, widened, w) = (Memory::of(&rounded), Memory::of(&widened), Memory::of(w));
        let of_bf16 = run(rounded.address(), true);
        assert_eq!(of_bf16, run(widened.address(), false), "bf16 weights are widened");
        Some((run(w.address(), false), 0.0))
    }
}

impl Device for Machine {
    fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32) -> Answer {
        let width = weight.len();
        if width > norm::MOST {
            return None;
        }
        let (x_memory, weight, out) = (Memory::of(x), Memory::of(weight), unwritten(x.len()));
        let norm = Norm {
            x: x_memory.address(),
            weight: weight.address(),
            residual: 0,
            out: out.address(),
            width: width as u32,
            eps,
        };
        self.launch(&norm.launch((x.len() / width) as u32, false));
        exactly(&out)
    }
    fn silu_mul(&self, gate: &[f32], up: &[f32]) -> Answer {
        self.elements(Op::SiluMul, gate, up, 0, [0.0; 2])
    }
    fn clamped_swiglu(&self, gate: &[f32], up: &[f32], alpha: f32, limit: f32) -> Answer {
        self.elements(Op::ClampedSwiglu, gate, up, 0, [alpha, limit])
    }
    fn silu(&self, x: &[f32]) -> Answer {
        self.elements(Op::Silu, x, &[], 0, [0.0; 2])
    }
    fn sigmoid_mul(&self, x: &[f32], gate: &[f32]) -> Answer {
        self.elements(Op::SigmoidMul, x, gate, 0, [0.0; 2])
    }
    fn add(&self, x: &[f32], y: &[f32]) -> Answer {
        self.elements(Op::Add, x, y, 0, [0.0; 2])
    }
    fn blend(&self, x: &[f32], y: &[f32], alpha: f32, beta: f32) -> Answer {
        self.elements(Op::Blend, x, y, 0, [alpha, beta])
    }
    fn add_to_rows(&self, x: &[f32], bias: &[f32]) -> Answer {
        self.elements(Op::AddToRows, x, bias, bias.len(), [0.0; 2])
    }
    fn gate_rows(&self, x: &[f32], gates: &[f32]) -> Answer {
        self.elements(Op::GateRows, x, gates, x.len() / gates.len(), [0.0; 2])
    }
    fn gather(&self, x: &[f32], rows: &[u32], dim: usize) -> Answer {
        let (x, rows_memory, out) = (Memory::of(x), Memory::of(rows), unwritten(rows.len() * dim));
        let gather = Gather {
            x: x.address(),
            rows: rows_memory.address(),
            out: out.address(),
            stride: dim as u32,
            width: dim as u32,
        };
        self.launch(&gather.launch(rows.len() as u32, false));
        exactly(&out)
    }
    fn combine(&self, x: &[f32], rows: &[u32], weights: &[f32], per_token: usize, dim: usize) -> Answer {
        let tokens = rows.len() / per_token;
        let (x, places, weights) = (Memory::of(x), Memory::of(rows), Memory::of(weights));
        let out = unwritten(tokens * dim);
        let combine = Combine {
            x: x.address(),
            places: places.address(),
            weights: weights.address(),
            out: out.address(),
            per_token: per_token as u32,
            width: dim as u32,
        };
        self.launch(&combine.launch(tokens as u32));
        exactly(&out)
    }
    fn rotate(&self, x: &[f32], table: &Table, positions: &[u32], heads: usize, interleaved: bool) -> Answer {
        let (rows, head_dim) = (positions.len(), x.len() / positions.len() / heads);
        let (x, positions) = (Memory::of(x), Memory::of(positions));
        let [cosines, sines] = table.values().map(Memory::of);
        let rotary = Rotary {
            x: x.address(),
            cosines: cosines.address(),
            sines: sines.address(),
            positions: positions.address(),
            rows: rows as u32,
            heads: heads as u32,
            head_dim: head_dim as u32,
            half: table.pairs() as u32,
        };
        self.launch(&rotary.launch(interleaved));
        exactly(&x)
    }
    fn choose(&self, logits: &[f32], bias: Option<&[f32]>, experts: usize, rule: &Rule) -> Answer {
        let (rows, k) = (logits.len() / experts, rule.per_token);
        let (logits, bias) = (Memory::of(logits), bias.map(Memory::of));
        let (ids, weights) = (Memory::of(&vec![u32::MAX; rows * k]), unwritten(rows * k));
        let bias = bias.as_ref().map_or(0, Memory::address);
        let memory = [logits.address(), bias, ids.address(), weights.address()];
        self.launch(&Gate::launch(rule, memory, rows, experts)?);
        Some((chosen(&ids.values(), &weights.values(), k), 0.0))
    }
    fn product(&self, x: &[f32], w: Matrix<'_>, m: usize) -> Answer {
        if let Matrix::F32 { values, n, k } = w {
            return self.dense(x, values, [m, n, k]);
        }
        let w = Weights::of(w)?;
        let x: Vec<bf16> = x.iter().map(|x| bf16::from_f32(*x)).collect();
        exactly(&self.experts(&Experts { x: &x, ..Experts::one(&w, m) }))
    }
    fn attend(&self, stories: &attention::Stories) -> Answer {
        self.attend(stories)
    }
    fn attend_latent(&self, stories: &latent::Stories) -> Answer {
        self.attend_latent(stories)
    }
    fn lightning(&self, layer: &lightning::Layer, qkv: &[f32], lengths: &[usize]) -> Answer {
        self.lightning(layer, qkv, lengths)
    }
}
