//! Experts, one token at a time.

use super::math::{add, matvec, softmax};
use super::widened::Widened;
use crate::model::config::plan::MoePlan;
use crate::moe::Moe;
use crate::moe::expert::Expert;

/// The sum of a token's best experts' answers, each times its weight.
pub fn moe(plan: &MoePlan, weights: &Moe<Widened>, x: &[f32]) -> Vec<f32> {
    let mut scores = matvec(&weights.gate.weight, x);
    softmax(&mut scores);
    let mut best: Vec<usize> = (0..plan.experts).collect();
    best.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    best.truncate(plan.per_token);
    let total: f32 = if plan.renormalise { best.iter().map(|&e| scores[e]).sum() } else { 1.0 };
    let experts = weights.experts.now();
    let mut out = vec![0.0; x.len()];
    for e in best {
        let expert = experts[e].as_ref().expect("every expert is loaded");
        add(&mut out, &feed_forward(expert, x), scores[e] / total);
    }
    out
}

/// `w2 · (silu(w1 · x) ⊙ (w3 · x))`
pub fn feed_forward(weights: &Expert<Widened>, x: &[f32]) -> Vec<f32> {
    let silu = |x: f32| x / (1.0 + (-x).exp());
    let (gate, up) = (matvec(&weights.w1, x), matvec(&weights.w3, x));
    let inner: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| silu(*g) * u).collect();
    matvec(&weights.w2, &inner)
}
