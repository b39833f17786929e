//! The gate of a MoE layer: which experts a token goes to, and with what weights.

use super::disjoint::Disjoint;
use super::logits::softmax_row;
use super::pool::Pool;
use super::scratch;

/// Softmax over all experts in f32, then the `k` best of each row, best first, ties lowest id.
///
/// `logits` is `[rows, experts]`; `ids` and `weights` are `[rows, k]` and overwritten. With `renormalise`, a row's
/// weights are divided by their sum. A row's ids are distinct and valid whatever the logits (NaN weights are not
/// hidden).
///
/// # Panics
/// If a length does not fit, or `k` is 0 or more than `experts`.
pub fn softmax_top_k(
    pool: &Pool,
    logits: &[f32],
    experts: usize,
    k: usize,
    renormalise: bool,
    ids: &mut [u32],
    weights: &mut [f32],
) {
    assert!(0 < k && k <= experts, "k is within 1..=experts");
    assert!(logits.len().is_multiple_of(experts), "logits are [rows, experts]");
    let rows = logits.len() / experts;
    assert!(ids.len() == rows * k && weights.len() == rows * k, "ids and weights are [rows, k]");
    let per_task = (4096 / experts).max(1);
    let isa = pool.isa();
    let (ids, weights) = (Disjoint::new(ids, k), Disjoint::new(weights, k));
    pool.tasks(rows.div_ceil(per_task), |task| {
        scratch::with(experts, |probabilities| {
            for row in task * per_task..rows.min((task + 1) * per_task) {
                probabilities.copy_from_slice(&logits[row * experts..][..experts]);
                softmax_row(isa, probabilities);
                // SAFETY: every row is one task's.
                let (ids, weights) = unsafe { (ids.row(row), weights.row(row)) };
                choose(probabilities, renormalise, ids, weights);
            }
        });
    });
}

/// The specification of one row, after its softmax; the implementation differs in nothing.
fn choose(probabilities: &[f32], renormalise: bool, ids: &mut [u32], weights: &mut [f32]) {
    for j in 0..ids.len() {
        let mut best: Option<(usize, f32)> = None;
        for (i, p) in probabilities.iter().enumerate() {
            if !ids[..j].contains(&(i as u32)) && best.is_none_or(|(_, most)| *p > most) {
                best = Some((i, *p));
            }
        }
        let (id, p) = best.unwrap_or((0, f32::NAN)); // never: there are at least as many experts as choices
        ids[j] = id as u32;
        weights[j] = p;
    }
    if renormalise {
        let sum: f32 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= sum);
    }
}
