//! A layer of experts: the gate chooses, tokens are dispatched to their experts, outputs are combined.

pub mod activations;
pub mod combine;
pub mod dispatch;
pub mod exchange;
pub mod gate;

use crate::backend::Backend;
use crate::moe::combine::combine;
use crate::moe::dispatch::Dispatch;
use crate::moe::gate::Gate;
use crate::weights::Storage;

/// The experts of one layer; entry e of each list belongs to expert e. An expert computes
/// `w2 · (silu(w1 · x) ⊙ (w3 · x))`.
pub struct Experts<S: Storage> {
    /// `[intermediate, hidden]` each.
    pub w1: Vec<S::Matrix>,
    /// `[hidden, intermediate]` each.
    pub w2: Vec<S::Matrix>,
    /// `[intermediate, hidden]` each.
    pub w3: Vec<S::Matrix>,
}

/// A gate and its experts.
pub struct Moe<S: Storage> {
    /// Who picks.
    pub gate: Gate<S>,
    /// Who is picked.
    pub experts: Experts<S>,
}

impl<B: Backend> Moe<B> {
    /// `x` is `[tokens, hidden]`, and so is the result.
    pub fn forward(&self, backend: &B, x: &B::Tensor) -> B::Tensor {
        let choice = self.gate.choose(backend, x);
        let dispatch = Dispatch::new(&choice, self.experts.w1.len());
        let sent = backend.gather(x, &dispatch.tokens);
        let answers = self.experts.forward(backend, &sent, &dispatch.offsets);
        combine(backend, &answers, &dispatch, &choice)
    }
}

impl<B: Backend> Experts<B> {
    /// Rows `offsets[e]..offsets[e + 1]` of `x` go through expert e.
    fn forward(&self, backend: &B, x: &B::Tensor, offsets: &[u32]) -> B::Tensor {
        let [gate, up] = backend.grouped_matmul(x, offsets, [&self.w1, &self.w3]);
        let inner = backend.silu_mul(&gate, &up);
        let [out] = backend.grouped_matmul(&inner, offsets, [&self.w2]);
        out
    }
}
