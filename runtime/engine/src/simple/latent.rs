//! Latent attention by the paper's equations: keys and values of every head are made from the latents.

use super::attention::rotate;
use super::math::{add, dot, matvec, rms_norm, softmax};
use super::widened::Widened;
use crate::backend::LatentShape;
use crate::model::config::plan::LatentPlan;
use crate::model::latent::{LatentWeights, QueryWeights};

/// `x` is one row a token, and so is the result.
pub fn latent_attention(
    plan: &LatentPlan,
    weights: &LatentWeights<Widened>,
    x: &[Vec<f32>],
) -> Vec<Vec<f32>> {
    let LatentShape { heads, latent, rope, scale } = plan.shape;
    let LatentPlan { nope, value, eps, .. } = *plan;
    let queries: Vec<Vec<f32>> = (0..)
        .zip(x)
        .map(|(position, x)| {
            let mut q = match &weights.q {
                QueryWeights::Whole(q) => matvec(q, x),
                QueryWeights::Compressed { down, norm, up } => {
                    matvec(up, &rms_norm(&matvec(down, x), norm, eps))
                }
            };
            q.chunks_exact_mut(nope + rope).for_each(|head| rotate(&plan.rope, &mut head[nope..], position));
            q
        })
        .collect();
    // Of every token, each head's key and value.
    let kv: Vec<Vec<[Vec<f32>; 2]>> = (0..)
        .zip(x)
        .map(|(position, x)| {
            let mut row = matvec(&weights.kv, x);
            rotate(&plan.rope, &mut row[latent..], position);
            let (c, rotated) = row.split_at(latent);
            let c = rms_norm(c, &weights.kv_norm, eps);
            let of_head = |head: usize| {
                // The matrix lies transposed.
                let across =
                    |i: usize| weights.keys[head].iter().skip(i).step_by(nope).copied().collect::<Vec<f32>>();
                let key = (0..nope).map(|i| dot(&across(i), &c)).chain(rotated.iter().copied());
                [key.collect(), matvec(&weights.values[head], &c)]
            };
            (0..heads).map(of_head).collect()
        })
        .collect();
    let attend = |t: usize| {
        let mut out = vec![0.0; heads * value];
        for (head, out) in out.chunks_exact_mut(value).enumerate() {
            let query = &queries[t][head * (nope + rope)..][..nope + rope];
            let mut scores: Vec<f32> = kv[..=t].iter().map(|kv| dot(query, &kv[head][0]) * scale).collect();
            softmax(&mut scores);
            scores.iter().zip(&kv).for_each(|(score, kv)| add(out, &kv[head][1], *score));
        }
        matvec(&weights.o, &out)
    };
    (0..x.len()).map(attend).collect()
}
