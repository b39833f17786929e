//! Attention of every token to all before it.

use super::math::{add, dot, matvec, softmax};
use super::widened::Widened;
use crate::backend::AttentionShape;
use crate::model::attention::AttentionWeights;
use crate::model::config::plan::{AttentionPlan, RopePlan};

/// `x` is one row a token, and so is the result.
pub fn attention(plan: &AttentionPlan, weights: &AttentionWeights<Widened>, x: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let AttentionShape { heads, kv_heads, head_dim, scale } = plan.shape;
    let rotated = |w: &[f32]| -> Vec<Vec<f32>> {
        let row = |(position, x): (usize, &Vec<f32>)| {
            let mut row = matvec(w, x);
            row.chunks_exact_mut(head_dim).for_each(|head| rotate(&plan.rope, head, position));
            row
        };
        x.iter().enumerate().map(row).collect()
    };
    let (q, k) = (rotated(&weights.q), rotated(&weights.k));
    let v: Vec<Vec<f32>> = x.iter().map(|x| matvec(&weights.v, x)).collect();
    let attend = |t: usize| {
        let mut out = vec![0.0; heads * head_dim];
        for head in 0..heads {
            let (own, kv) = (head * head_dim, head / (heads / kv_heads) * head_dim);
            let query = &q[t][own..][..head_dim];
            let mut scores: Vec<f32> =
                k[..=t].iter().map(|k| dot(query, &k[kv..][..head_dim]) * scale).collect();
            softmax(&mut scores);
            for (score, v) in scores.iter().zip(&v) {
                add(&mut out[own..][..head_dim], &v[kv..][..head_dim], *score);
            }
        }
        matvec(&weights.o, &out)
    };
    (0..x.len()).map(attend).collect()
}

/// Turns the pairs (i, i + rotary_dim / 2) of one head.
fn rotate(plan: &RopePlan, head: &mut [f32], position: usize) {
    let half = plan.rotary_dim / 2;
    for i in 0..half {
        let frequency = plan.theta.powf(-(i as f64) / half as f64) as f32;
        let (sin, cos) = (position as f32 * frequency).sin_cos();
        let (a, b) = (head[i], head[i + half]);
        head[i] = a * cos - b * sin;
        head[i + half] = b * cos + a * sin;
    }
}
