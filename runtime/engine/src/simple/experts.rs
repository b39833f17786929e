//! Experts, one token at a time.

use super::math::{add, matvec, softmax};
use super::widened::Widened;
use crate::model::config::plan::Activation;
use crate::moe::expert::Expert;
use crate::moe::{Moe, SharedExpert};
use coterie_kernels::gate::{Groups, Rule, Scores, Worth};

/// The sum of a token's best experts' answers, each times its weight, and of the shared expert's.
pub fn moe(weights: &Moe<Widened>, x: &[f32]) -> Vec<f32> {
    let mut logits = matvec(&weights.gate.weight, x);
    if let Some(bias) = &weights.gate.bias {
        add(&mut logits, bias, 1.0);
    }
    let experts = weights.experts.now();
    let mut out = vec![0.0; x.len()];
    for (e, weight) in choose(&weights.gate.rule, logits, weights.gate.correction.as_deref()) {
        let expert = experts[e].as_ref().expect("every expert is loaded");
        add(&mut out, &feed_forward(expert, x), weight);
    }
    if let Some(SharedExpert { expert, gate }) = &weights.shared {
        let weight = gate.as_ref().map_or(1.0, |gate| sigmoid(matvec(gate, x)[0]));
        add(&mut out, &feed_forward(expert, x), weight);
    }
    out
}

/// Experts and their weights, best first.
fn choose(rule: &Rule, logits: Vec<f32>, correction: Option<&[f32]>) -> Vec<(usize, f32)> {
    let mut scores = logits;
    match rule.scores {
        Scores::Softmax => softmax(&mut scores),
        Scores::Sigmoid => scores.iter_mut().for_each(|score| *score = sigmoid(*score)),
        Scores::SoftmaxOfChosen => {}
    }
    let mut ranks = scores.clone();
    if let Some(correction) = correction {
        add(&mut ranks, correction, 1.0);
    }
    if let Some(groups) = &rule.groups {
        leave_groups_out(groups, &mut ranks);
    }
    let mut best = by_rank(&ranks);
    best.truncate(rule.per_token);
    let mut weights: Vec<f32> = best.iter().map(|&e| scores[e]).collect();
    if rule.scores == Scores::SoftmaxOfChosen {
        softmax(&mut weights);
    }
    let total = if rule.renormalise { weights.iter().sum::<f32>() + 1e-20 } else { 1.0 };
    best.into_iter().zip(weights).map(|(e, weight)| (e, weight / total * rule.factor)).collect()
}

/// The experts of groups that are not kept are never chosen.
fn leave_groups_out(groups: &Groups, ranks: &mut [f32]) {
    let size = ranks.len() / groups.count;
    let worth = |ranks: &[f32]| {
        let order = by_rank(ranks);
        match groups.worth {
            Worth::Best => ranks[order[0]],
            Worth::TwoBest => ranks[order[0]] + ranks[order[1]],
        }
    };
    let worths: Vec<f32> = ranks.chunks(size).map(worth).collect();
    for &group in &by_rank(&worths)[groups.kept..] {
        ranks[group * size..][..size].fill(f32::NEG_INFINITY);
    }
}

/// All places of `ranks`, that of the largest first, the first of equals before the others.
fn by_rank(ranks: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ranks.len()).collect();
    order.sort_by(|&a, &b| ranks[b].total_cmp(&ranks[a]));
    order
}

/// `w2 · activation(w1 · x, w3 · x)`, with biases where there are any.
pub fn feed_forward(weights: &Expert<Widened>, x: &[f32]) -> Vec<f32> {
    let project = |w: &[f32], number: usize, x: &[f32]| {
        let mut out = matvec(w, x);
        if let Some(biases) = &weights.biases {
            add(&mut out, &biases[number], 1.0);
        }
        out
    };
    let (gate, up) = (project(&weights.w1, 0, x), project(&weights.w3, 2, x));
    let activate = |(gate, up): (&f32, &f32)| match weights.activation {
        Activation::Silu => gate * sigmoid(*gate) * up,
        Activation::ClampedSwiglu { alpha, limit } => {
            let (gate, up) = (gate.min(limit), up.clamp(-limit, limit));
            (up + 1.0) * gate * sigmoid(alpha * gate)
        }
    };
    let inner: Vec<f32> = gate.iter().zip(&up).map(activate).collect();
    project(&weights.w2, 1, &inner)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
