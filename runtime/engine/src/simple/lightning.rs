//! Lightning attention, token by token.

use super::math::{add, matvec, rms_norm};
use super::widened::Widened;
use crate::model::config::plan::LightningPlan;
use crate::model::lightning::LightningWeights;

/// `x` is one row a token, and so is the result.
pub fn lightning(
    plan: &LightningPlan,
    weights: &LightningWeights<Widened>,
    x: &[Vec<f32>],
    eps: f32,
) -> Vec<Vec<f32>> {
    let (heads, d) = (plan.heads(), plan.head_dim);
    let mut states = vec![vec![0.0; d * d]; heads];
    let attend = |x: &Vec<f32>| {
        let qkv: Vec<f32> = matvec(&weights.qkv, x).into_iter().map(|z| z * sigmoid(z)).collect();
        let mut out = vec![0.0; heads * d];
        for (head, state) in states.iter_mut().enumerate() {
            let part = |part: usize| &qkv[(head * 3 + part) * d..][..d];
            let (q, k, v) = (part(0), part(1), part(2));
            let decay = (-plan.slopes[head]).exp() as f32;
            for (row, state) in state.chunks_exact_mut(d).enumerate() {
                state.iter_mut().zip(v).for_each(|(state, v)| *state = decay * *state + k[row] * v);
                add(&mut out[head * d..][..d], state, q[row]);
            }
        }
        let mut out = rms_norm(&out, &weights.norm, eps);
        out.iter_mut().zip(matvec(&weights.gate, x)).for_each(|(out, gate)| *out *= sigmoid(gate));
        matvec(&weights.out, &out)
    };
    x.iter().map(attend).collect()
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
