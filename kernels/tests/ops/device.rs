//! What runs the cases: the CPU's ops, or another device's.
#![allow(dead_code)] // each test binary uses a part

use coterie_kernels::cpu::matmul::{self, Matrix};
use coterie_kernels::cpu::pool::Pool;
use coterie_kernels::cpu::rope::{self, Table};
use coterie_kernels::cpu::{activation, gate, moe, norm};
use coterie_kernels::gate::Rule;

use super::{attention, latent, lightning};

/// An op's result, and how much its error may be over the case's bound because the device computes with coarser
/// numbers within the op.
pub type Answer = Option<(Vec<f32>, f64)>;

/// One op on one input each; none where the device has no such op, or not of such sizes.
pub trait Device {
    /// The CPU, for ops that only it has.
    fn cpu(&self) -> Option<&Pool> {
        None
    }
    fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32) -> Answer;
    fn silu_mul(&self, gate: &[f32], up: &[f32]) -> Answer;
    fn clamped_swiglu(&self, gate: &[f32], up: &[f32], alpha: f32, limit: f32) -> Answer;
    fn silu(&self, x: &[f32]) -> Answer;
    fn sigmoid_mul(&self, x: &[f32], gate: &[f32]) -> Answer;
    fn add(&self, x: &[f32], y: &[f32]) -> Answer;
    fn blend(&self, x: &[f32], y: &[f32], alpha: f32, beta: f32) -> Answer;
    fn add_to_rows(&self, x: &[f32], bias: &[f32]) -> Answer;
    fn gate_rows(&self, x: &[f32], gates: &[f32]) -> Answer;
    fn gather(&self, x: &[f32], rows: &[u32], dim: usize) -> Answer;
    fn combine(&self, x: &[f32], rows: &[u32], weights: &[f32], per_token: usize, dim: usize) -> Answer;
    fn rotate(&self, x: &[f32], table: &Table, positions: &[u32], heads: usize, interleaved: bool) -> Answer;
    /// Of each row the experts, then their weights.
    fn choose(&self, logits: &[f32], bias: Option<&[f32]>, experts: usize, rule: &Rule) -> Answer;
    fn product(&self, x: &[f32], w: Matrix<'_>, m: usize) -> Answer;
    fn attend(&self, stories: &attention::Stories) -> Answer;
    fn attend_latent(&self, stories: &latent::Stories) -> Answer;
    /// Whole sequences of these lengths.
    fn lightning(&self, layer: &lightning::Layer, qkv: &[f32], lengths: &[usize]) -> Answer;
}

/// What `op` writes over `length` values that nobody has written.
fn written(length: usize, op: impl FnOnce(&mut [f32])) -> Answer {
    changed(&vec![f32::NAN; length], op)
}

/// What `op` makes of `x`.
fn changed(x: &[f32], op: impl FnOnce(&mut [f32])) -> Answer {
    let mut out = x.to_vec();
    op(&mut out);
    Some((out, 0.0))
}

impl Device for Pool {
    fn cpu(&self) -> Option<&Pool> {
        Some(self)
    }
    fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32) -> Answer {
        written(x.len(), |out| norm::rms_norm(self, out, x, weight, eps, weight.len()))
    }
    fn silu_mul(&self, gate: &[f32], up: &[f32]) -> Answer {
        written(up.len(), |out| activation::silu_mul(self, out, gate, up))
    }
    fn clamped_swiglu(&self, gate: &[f32], up: &[f32], alpha: f32, limit: f32) -> Answer {
        written(up.len(), |out| activation::clamped_swiglu(self, out, gate, up, alpha, limit))
    }
    fn silu(&self, x: &[f32]) -> Answer {
        changed(x, |x| activation::silu(self, x))
    }
    fn sigmoid_mul(&self, x: &[f32], gate: &[f32]) -> Answer {
        changed(x, |x| activation::sigmoid_mul(self, x, gate))
    }
    fn add(&self, x: &[f32], y: &[f32]) -> Answer {
        changed(x, |x| activation::add(self, x, y))
    }
    fn blend(&self, x: &[f32], y: &[f32], alpha: f32, beta: f32) -> Answer {
        changed(x, |x| activation::blend(self, x, y, alpha, beta))
    }
    fn add_to_rows(&self, x: &[f32], bias: &[f32]) -> Answer {
        changed(x, |x| activation::add_to_rows(self, x, bias))
    }
    fn gate_rows(&self, x: &[f32], gates: &[f32]) -> Answer {
        changed(x, |x| activation::gate_rows(self, x, gates, x.len() / gates.len()))
    }
    fn gather(&self, x: &[f32], rows: &[u32], dim: usize) -> Answer {
        written(rows.len() * dim, |out| moe::gather(self, out, x, rows, dim))
    }
    fn combine(&self, x: &[f32], rows: &[u32], weights: &[f32], per_token: usize, dim: usize) -> Answer {
        let length = rows.len() / per_token * dim;
        written(length, |out| moe::combine(self, out, x, rows, weights, per_token, dim))
    }
    fn rotate(&self, x: &[f32], table: &Table, positions: &[u32], heads: usize, interleaved: bool) -> Answer {
        let op = if interleaved { rope::interleaved } else { rope::half_split };
        let head_dim = x.len() / positions.len() / heads;
        changed(x, |x| op(self, x, table, positions, heads, head_dim))
    }
    fn choose(&self, logits: &[f32], bias: Option<&[f32]>, experts: usize, rule: &Rule) -> Answer {
        let (rows, k) = (logits.len() / experts, rule.per_token);
        let (mut ids, mut weights) = (vec![0; rows * k], vec![f32::NAN; rows * k]);
        gate::choose(self, logits, bias, experts, rule, &mut ids, &mut weights);
        Some((chosen(&ids, &weights, k), 0.0))
    }
    fn product(&self, x: &[f32], w: Matrix<'_>, m: usize) -> Answer {
        written(m * w.n(), |out| matmul::any(self, out, x, w, m))
    }
    fn attend(&self, stories: &attention::Stories) -> Answer {
        Some((stories.run(self), 0.0))
    }
    fn attend_latent(&self, stories: &latent::Stories) -> Answer {
        Some((stories.run(self), 0.0))
    }
    fn lightning(&self, layer: &lightning::Layer, qkv: &[f32], lengths: &[usize]) -> Answer {
        Some((layer.clone().run(self, qkv, &lightning::whole(lengths)), 0.0))
    }
}

/// Of each row the experts, then their weights.
pub fn chosen(ids: &[u32], weights: &[f32], per_token: usize) -> Vec<f32> {
    let rows = ids.chunks(per_token).zip(weights.chunks(per_token));
    rows.flat_map(|(ids, weights)| ids.iter().map(|id| *id as f32).chain(weights.to_vec())).collect()
}
