//! What a map makes of the tokens that were counted.

use super::layer::Layer;
use super::terms::Terms;
use super::{Input, Rank, pairs};
use coterie_api::expert_map::ExpertMap;
use std::collections::BTreeMap;

/// By how many standard deviations of one rank's load the busiest of n seems off between two samples of the same
/// tokens: √2 for two samples, √(2 ln n) for the largest of n.
const TWO_SAMPLES: f64 = std::f64::consts::SQRT_2;

/// How good a map is for some tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// See [`balance`]; 1 if there were no tokens.
    pub balance: f64,
    /// Slots beyond one for each expert, all layers together.
    pub copies: usize,
    /// Copies that share a node with another one of their expert although there is a node without one.
    pub crowded: usize,
    /// Of the pairs of experts that tokens need together, the share whose two are on different nodes; `None` where that
    /// was not counted.
    pub cross_node: Option<f64>,
}

impl Figures {
    /// What `map` makes of the tokens, nodes and pairs of `input`.
    ///
    /// # Panics
    /// If it is of another model than the input.
    pub fn of(map: &ExpertMap, input: &Input) -> Figures {
        let nodes = nodes(input.ranks, map.ranks());
        let (mut crowded, mut apart, mut all) = (0, 0.0, 0.0);
        for (number, tokens) in input.tokens.iter().enumerate() {
            let shares: Vec<usize> = (0..map.ranks()).map(|rank| map.held(number, rank).len()).collect();
            let terms = Terms::new(tokens, &nodes, &shares);
            let mut layer = Layer::empty(&terms);
            for rank in 0..map.ranks() {
                map.held(number, rank).iter().for_each(|&expert| layer.put(usize::from(expert), rank));
            }
            crowded += layer.crowded();
            for pair in pairs(input, number).unwrap_or_default() {
                let [a, b] = pair.experts.map(usize::from);
                all += pair.tokens as f64;
                apart += pair.tokens as f64 * apart_share(&layer, a, b);
            }
        }
        Figures {
            balance: balance(map, input.tokens).unwrap_or(1.0),
            copies: map.copies(),
            crowded,
            cross_node: input.together.map(|_| if all > 0.0 { apart / all } else { 0.0 }),
        }
    }
}

/// Load of the busiest rank over the mean of all ranks; over layers, the sum of the busiest over the sum of the means,
/// because a step waits for the busiest rank of each layer. An expert's tokens are shared by its holders. `None` if there
/// were no tokens; those of layers or experts that the map does not have are left out.
pub fn balance(map: &ExpertMap, tokens: &[Vec<u64>]) -> Option<f64> {
    let (mut busiest, mut total) = (0.0, 0.0);
    for (layer, tokens) in tokens.iter().enumerate().take(map.layers()) {
        let held = |rank| map.held(layer, rank).iter().map(|&expert| usize::from(expert));
        let mut copies = vec![0_u32; map.experts()];
        (0..map.ranks()).flat_map(held).for_each(|expert| copies[expert] += 1);
        let share = |expert: usize| {
            tokens.get(expert).map_or(0.0, |&tokens| tokens as f64) / f64::from(copies[expert])
        };
        let loads = (0..map.ranks()).map(|rank| held(rank).map(share).sum::<f64>());
        busiest += loads.fold(0.0, f64::max);
        total += tokens.iter().take(map.experts()).map(|&tokens| tokens as f64).sum::<f64>();
    }
    (total > 0.0).then(|| busiest * map.ranks() as f64 / total)
}

/// How often copies of two experts, each taken by chance, are on different nodes.
fn apart_share(layer: &Layer, a: usize, b: usize) -> f64 {
    let node = |rank: usize| layer.terms.nodes[rank];
    let apart = |one: usize| layer.holders(b).filter(|&other| node(other) != node(one)).count();
    let pairs = layer.copies(a) * layer.copies(b);
    layer.holders(a).map(apart).sum::<usize>() as f64 / pairs.max(1) as f64
}

/// `[rank]`: nodes counted from 0 without gaps. A rank that is gone counts as on a node of its own.
pub(super) fn nodes(ranks: &[Rank], count: usize) -> Vec<usize> {
    let mut numbers = BTreeMap::new();
    let known = ranks.iter().take(count).map(|rank| Some(rank.node));
    let gone = std::iter::repeat_n(None, count.saturating_sub(ranks.len()));
    let node = |(rank, node): (usize, Option<usize>)| {
        let next = numbers.len();
        *numbers.entry(node.ok_or(rank)).or_insert(next)
    };
    known.chain(gone).enumerate().map(node).collect()
}

/// The difference of balance that two samples of the same distribution, each of as many tokens as were counted, are
/// likely to show between a map and the one that is best for the newer sample.
pub(super) fn chance(input: &Input) -> f64 {
    let ranks = input.ranks.len() as f64;
    let (mut off, mut all) = (0.0, 0.0);
    for tokens in input.tokens {
        let mean = tokens.iter().map(|&tokens| tokens as f64).sum::<f64>() / ranks;
        off += TWO_SAMPLES * (2.0 * ranks.ln() * mean).sqrt();
        all += mean;
    }
    if all > 0.0 { off / all } else { 0.0 }
}
