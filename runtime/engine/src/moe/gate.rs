//! The gate: which experts a token uses, and how much each counts.

use crate::backend::{Backend, Choice};
use crate::weights::Storage;

/// Softmax over all experts, then the best few.
pub struct Gate<S: Storage> {
    /// `[experts, hidden]`
    pub weight: S::Matrix,
    /// Experts that one token uses.
    pub experts_per_token: usize,
    /// Do the weights of the chosen sum to 1?
    pub renormalise: bool,
}

impl<B: Backend> Gate<B> {
    /// The experts of each row of `x`.
    pub fn choose(&self, backend: &B, x: &B::Tensor) -> Choice {
        let [logits] = backend.matmul(x, [&self.weight]);
        backend.softmax_top_k(&logits, self.experts_per_token, self.renormalise)
    }
}
