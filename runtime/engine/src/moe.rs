//! A layer of experts: the gate chooses, tokens are dispatched to their experts, outputs are combined.
//!
//! [`exchange`] is the only door to experts on other ranks; [`ranks`] goes through it, [`host`] stands behind it.

pub mod activations;
pub mod combine;
pub mod dispatch;
pub mod exchange;
pub mod expert;
pub mod gate;
pub mod host;
mod parcels;
pub mod ranks;
pub mod share;

use crate::backend::Backend;
use crate::moe::combine::combine;
use crate::moe::dispatch::Dispatch;
use crate::moe::expert::{Expert, LayerExperts, compute};
use crate::moe::gate::Gate;
use crate::moe::ranks::LayerRanks;
use crate::weights::Storage;
use std::sync::Arc;

/// A gate and its experts.
pub struct Moe<S: Storage> {
    /// Who picks.
    pub gate: Gate<S>,
    /// Who is picked, as far as they are here.
    pub experts: Arc<LayerExperts<S>>,
    /// Who is always asked; every rank has it.
    pub shared: Option<SharedExpert<S>>,
}

/// An expert that every token uses.
pub struct SharedExpert<S: Storage> {
    /// The expert.
    pub expert: Expert<S>,
    /// How much it counts, before a sigmoid; `[1, hidden]`.
    pub gate: Option<S::Matrix>,
}

impl<B: Backend> SharedExpert<B> {
    fn forward(&self, backend: &B, x: &B::Tensor) -> B::Tensor {
        let mut answer = self.expert.forward(backend, x);
        if let Some(gate) = &self.gate {
            let [gates] = backend.matmul(x, [gate]);
            backend.gate_rows(&mut answer, &gates);
        }
        answer
    }
}

impl<B: Backend> Moe<B> {
    /// `x` is `[tokens, hidden]`, and so is the result. Without `ranks`, every expert is here.
    pub fn forward(&self, backend: &B, x: &B::Tensor, ranks: Option<&LayerRanks>) -> B::Tensor {
        let logits = self.gate.logits(backend, x);
        let mut out = match ranks {
            Some(ranks) => self.dispatched(backend, x, &logits, |dispatch| {
                ranks.forward(backend, &self.experts, x, dispatch)
            }),
            None => self.forward_here(backend, x, &logits),
        };
        if let Some(shared) = &self.shared {
            backend.add(&mut out, &shared.forward(backend, x));
        }
        out
    }

    fn forward_here(&self, backend: &B, x: &B::Tensor, logits: &B::Tensor) -> B::Tensor {
        let experts = self.experts.now();
        let all: Vec<&Expert<B>> = experts.iter().flatten().map(|expert| &**expert).collect();
        debug_assert_eq!(all.len(), experts.len(), "a single rank holds every expert");
        let Gate { correction, rule, .. } = &self.gate;
        if let Some(out) = backend.experts(x, logits, correction.as_ref(), rule, &all) {
            return out;
        }
        self.dispatched(backend, x, logits, |dispatch| {
            compute(backend, &all, &backend.gather(x, &dispatch.tokens), &dispatch.offsets)
        })
    }

    /// By way of this process, which tells `answer` who goes where, and is given an answer for every send.
    fn dispatched(
        &self,
        backend: &B,
        x: &B::Tensor,
        logits: &B::Tensor,
        answer: impl FnOnce(&Dispatch) -> B::Tensor,
    ) -> B::Tensor {
        let choice = self.gate.choose(backend, logits);
        let dispatch = Dispatch::new(&choice, self.experts.now().len());
        debug_assert_eq!(choice.experts.len(), backend.rows(x) * choice.per_token, "every row is a token");
        combine(backend, &answer(&dispatch), &dispatch, &choice)
    }
}
