//! The gate of a MoE layer.

use super::launch::{Address, Launch};
use crate::gate::{Rule, Scores, Worth};

/// Tokens of a block: a warp each.
const WARPS: u32 = 4;

/// Most experts.
pub const MOST: usize = 1024;

/// Most experts of a token, and most groups.
pub const MOST_CHOSEN: usize = 32;

/// The parameters of `gate`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Gate {
    logits: Address,
    bias: Address,
    ids: Address,
    weights: Address,
    rows: u32,
    experts: u32,
    per_token: u32,
    scores: u32,
    groups: u32,
    kept: u32,
    two_best: u32,
    renormalise: u32,
    factor: f32,
}

impl Gate {
    /// The experts of `rows` rows by `rule`: `[rows, per_token]` of numbers (u32) and of weights, from logits `[rows, experts]`
    /// and, if there is one, a bias `[experts]`. None if there are more experts, groups or choices than the kernel takes.
    pub fn launch(
        rule: &Rule,
        [logits, bias, ids, weights]: [Address; 4],
        rows: usize,
        experts: usize,
    ) -> Option<Launch<Gate>> {
        let groups = rule.groups.map_or(0, |groups| groups.count);
        if experts > MOST || rule.per_token > MOST_CHOSEN || groups > MOST_CHOSEN {
            return None;
        }
        let gate = Gate {
            logits,
            bias,
            ids,
            weights,
            rows: rows as u32,
            experts: experts as u32,
            per_token: rule.per_token as u32,
            scores: match rule.scores {
                Scores::Softmax => 0,
                Scores::Sigmoid => 1,
                Scores::SoftmaxOfChosen => 2,
            },
            groups: groups as u32,
            kept: rule.groups.map_or(0, |groups| groups.kept) as u32,
            two_best: rule.groups.is_some_and(|groups| groups.worth == Worth::TwoBest).into(),
            renormalise: rule.renormalise.into(),
            factor: rule.factor,
        };
        Some(Launch {
            kernel: "gate",
            grid: [gate.rows.div_ceil(WARPS), 1, 1],
            block: 32 * WARPS,
            shared: WARPS as usize * 2 * 4 * MOST,
            parameters: gate,
        })
    }
}
