//! The gate of a MoE layer: which experts a token goes to, and with what weights.

use super::disjoint::Disjoint;
use super::isa::Isa;
use super::lanes;
use super::logits::softmax_row;
use super::pool::Pool;
use super::scratch;
use crate::gate::{Groups, Rule, Scores, Worth};

/// The experts of each row by `rule`, best first, ties lowest id.
///
/// `logits` is `[rows, experts]`, `bias` `[experts]`; `ids` and `weights` are `[rows, per_token]` and overwritten. A
/// row's ids are distinct and valid whatever the logits (NaN weights are not hidden).
///
/// # Panics
/// If a length does not fit, `per_token` is 0 or more than the experts of the groups that are kept, or the groups do
/// not divide the experts.
pub fn choose(
    pool: &Pool,
    logits: &[f32],
    bias: Option<&[f32]>,
    experts: usize,
    rule: &Rule,
    ids: &mut [u32],
    weights: &mut [f32],
) {
    let k = rule.per_token;
    let usable = rule.groups.map_or(experts, |groups| {
        assert!(experts.is_multiple_of(groups.count) && groups.kept <= groups.count, "groups divide experts");
        experts / groups.count * groups.kept
    });
    assert!(0 < k && k <= usable, "per_token is within 1..=experts");
    assert!(logits.len().is_multiple_of(experts), "logits are [rows, experts]");
    assert!(bias.is_none_or(|bias| bias.len() == experts), "bias is [experts]");
    let (rows, groups) = (logits.len() / experts, rule.groups.map_or(0, |groups| groups.count));
    assert!(ids.len() == rows * k && weights.len() == rows * k, "ids and weights are [rows, per_token]");
    let per_task = (4096 / experts).max(1);
    let isa = pool.isa();
    let (ids, weights) = (Disjoint::new(ids, k), Disjoint::new(weights, k));
    pool.tasks(rows.div_ceil(per_task), |task| {
        scratch::with(2 * experts + groups, |scratch| {
            let (scores, scratch) = scratch.split_at_mut(experts);
            let (ranks, worths) = scratch.split_at_mut(experts);
            for row in task * per_task..rows.min((task + 1) * per_task) {
                scores.copy_from_slice(&logits[row * experts..][..experts]);
                score(isa, rule.scores, scores);
                // SAFETY: every row is one task's.
                let (ids, weights) = unsafe { (ids.row(row), weights.row(row)) };
                pick(rule, scores, bias, ranks, worths, ids);
                weigh(isa, rule, scores, ids, weights);
            }
        });
    });
}

fn score(isa: Isa, scores: Scores, row: &mut [f32]) {
    match scores {
        Scores::Softmax => softmax_row(isa, row),
        Scores::Sigmoid => row.iter_mut().for_each(|x| *x = sigmoid(*x)),
        Scores::SoftmaxOfChosen => {}
    }
}

/// 1 / (1 + e^-x).
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + lanes::exp(0.0 - x))
}

/// Fills `ids` with the best experts. `ranks`, as long as `scores`, and `worths`, one a group, are scratch.
fn pick(
    rule: &Rule,
    scores: &[f32],
    bias: Option<&[f32]>,
    ranks: &mut [f32],
    worths: &mut [f32],
    ids: &mut [u32],
) {
    ranks.copy_from_slice(scores);
    if let Some(bias) = bias {
        ranks.iter_mut().zip(bias).for_each(|(rank, bias)| *rank += bias);
    }
    if let Some(groups) = &rule.groups {
        leave_groups_out(groups, ranks, worths);
    }
    best(ranks, ids);
}

/// Ranks all experts of the groups that are not kept last. Of groups that are worth the same, the first is kept.
fn leave_groups_out(groups: &Groups, ranks: &mut [f32], worths: &mut [f32]) {
    let size = ranks.len() / groups.count;
    for (worth, ranks) in worths.iter_mut().zip(ranks.chunks(size)) {
        *worth = worth_of(groups.worth, ranks);
    }
    for (g, ranks) in ranks.chunks_mut(size).enumerate() {
        let precedes = |(h, worth): &(usize, &f32)| **worth > worths[g] || (**worth == worths[g] && *h < g);
        if worths.iter().enumerate().filter(precedes).count() >= groups.kept {
            ranks.fill(f32::NEG_INFINITY);
        }
    }
}

fn worth_of(worth: Worth, ranks: &[f32]) -> f32 {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &rank in ranks {
        if rank > first {
            (first, second) = (rank, first);
        } else if rank > second {
            second = rank;
        }
    }
    match worth {
        Worth::Best => first,
        Worth::TwoBest => first + second,
    }
}

/// The largest of `ranks`, first come on a tie.
fn best(ranks: &[f32], ids: &mut [u32]) {
    for j in 0..ids.len() {
        let mut best: Option<(usize, f32)> = None;
        for (i, rank) in ranks.iter().enumerate() {
            if best.is_none_or(|(_, most)| *rank > most) && !ids[..j].contains(&(i as u32)) {
                best = Some((i, *rank));
            }
        }
        ids[j] = best.map_or(0, |(id, _)| id as u32); // never none: there are at least as many experts as choices
    }
}

/// The weights of the experts `ids`.
fn weigh(isa: Isa, rule: &Rule, scores: &[f32], ids: &[u32], weights: &mut [f32]) {
    weights.iter_mut().zip(ids).for_each(|(weight, id)| *weight = scores[*id as usize]);
    if rule.scores == Scores::SoftmaxOfChosen {
        softmax_row(isa, weights);
    }
    if rule.renormalise {
        // Sigmoids may all be 0. Beside a softmax the addend is lost.
        let sum = weights.iter().sum::<f32>() + 1e-20;
        weights.iter_mut().for_each(|w| *w /= sum);
    }
    weights.iter_mut().for_each(|w| *w *= rule.factor);
}
