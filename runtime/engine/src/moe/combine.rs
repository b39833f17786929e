//! Combine: each token's expert outputs, weighted and added in the gate's order, so that the sum does not depend on
//! which expert answered first.

use crate::backend::{Backend, Choice};
use crate::moe::dispatch::Dispatch;

/// `answers` holds one row a send; the result one row a token.
pub fn combine<B: Backend>(
    backend: &B,
    answers: &B::Tensor,
    dispatch: &Dispatch,
    choice: &Choice,
) -> B::Tensor {
    backend.combine(answers, &dispatch.sends, &choice.weights, choice.per_token)
}
