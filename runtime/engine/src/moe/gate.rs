//! The gate: which experts a token uses, and how much each counts.

use crate::backend::{Backend, Choice};
use crate::weights::Storage;
use coterie_kernels::gate::Rule;

/// A matrix that gives each token a logit for each expert, and what is made of them.
pub struct Gate<S: Storage> {
    /// `[experts, hidden]`
    pub weight: S::Matrix,
    /// Added to the logits, `[experts]`.
    pub bias: Option<S::Vector>,
    /// Added to the scores that choose, never to those that weigh, `[experts]`.
    pub correction: Option<S::Vector>,
    /// From logits to experts and weights.
    pub rule: Rule,
}

impl<B: Backend> Gate<B> {
    /// A logit for each expert, of each row of `x`.
    pub fn logits(&self, backend: &B, x: &B::Tensor) -> B::Tensor {
        let [mut logits] = backend.matmul(x, [&self.weight]);
        if let Some(bias) = &self.bias {
            backend.add_to_rows(&mut logits, bias);
        }
        logits
    }

    /// The experts of each row.
    pub fn choose(&self, backend: &B, logits: &B::Tensor) -> Choice {
        backend.choose(logits, self.correction.as_ref(), &self.rule)
    }
}
