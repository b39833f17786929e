//! Attention of every token to all before it.

use super::math::{add, dot, matvec, rms_norm, softmax};
use super::widened::Widened;
use crate::backend::AttentionShape;
use crate::model::attention::AttentionWeights;
use crate::model::config::plan::AttentionPlan;
use crate::model::config::rope::{Pairs, RopePlan};

/// `x` is one row a token, and so is the result.
pub fn attention(
    plan: &AttentionPlan,
    weights: &AttentionWeights<Widened>,
    eps: f32,
    x: &[Vec<f32>],
) -> Vec<Vec<f32>> {
    let AttentionShape { heads, kv_heads, head_dim, scale, window } = plan.shape;
    let bias = |number: usize| weights.qkv_bias.as_ref().map(|biases| &biases[number]);
    let turned = |w: &[f32], number: usize| -> Vec<Vec<f32>> {
        let row = |(position, x): (usize, &Vec<f32>)| {
            let mut row = project(w, bias(number), x);
            if let Some(gains) = weights.qk_norm.as_ref().map(|gains| &gains[number]) {
                row = row.chunks_exact(gains.len()).flat_map(|part| rms_norm(part, gains, eps)).collect();
            }
            row.chunks_exact_mut(head_dim).for_each(|head| rotate(&plan.rope, head, position));
            row
        };
        x.iter().enumerate().map(row).collect()
    };
    let (q, k) = (turned(&weights.q, 0), turned(&weights.k, 1));
    let v: Vec<Vec<f32>> = x.iter().map(|x| project(&weights.v, bias(2), x)).collect();
    let attend = |t: usize| {
        let first = window.map_or(0, |window| (t + 1).saturating_sub(window));
        let mut out = vec![0.0; heads * head_dim];
        for head in 0..heads {
            let (own, kv) = (head * head_dim, head / (heads / kv_heads) * head_dim);
            let query = &q[t][own..][..head_dim];
            let mut scores: Vec<f32> =
                k[first..=t].iter().map(|k| dot(query, &k[kv..][..head_dim]) * scale).collect();
            // A sink is one more score, without a value.
            scores.extend(weights.sinks.as_ref().map(|sinks| sinks[head]));
            softmax(&mut scores);
            for (score, v) in scores.iter().zip(&v[first..=t]) {
                add(&mut out[own..][..head_dim], &v[kv..][..head_dim], *score);
            }
        }
        project(&weights.o, weights.o_bias.as_ref(), &out)
    };
    (0..x.len()).map(attend).collect()
}

fn project(w: &[f32], bias: Option<&Vec<f32>>, x: &[f32]) -> Vec<f32> {
    let mut out = matvec(w, x);
    if let Some(bias) = bias {
        add(&mut out, bias, 1.0);
    }
    out
}

/// Turns the pairs of one head.
pub fn rotate(plan: &RopePlan, head: &mut [f32], position: usize) {
    let half = plan.rotary_dim / 2;
    for (i, frequency) in plan.frequencies().into_iter().enumerate() {
        let (sin, cos) = (position as f32 * frequency).sin_cos();
        let (sin, cos) = (sin * plan.amplitude(), cos * plan.amplitude());
        let (low, high) = match plan.pairs {
            Pairs::Halves => (i, i + half),
            Pairs::Neighbours => (2 * i, 2 * i + 1),
        };
        let (a, b) = (head[low], head[high]);
        head[low] = a * cos - b * sin;
        head[high] = b * cos + a * sin;
    }
}
