//! Random inputs, and what every placement of them must be.

mod against_eplb;
mod exhaustive;
mod loads;
mod maps;
mod worth;

use super::{Input, Placement, Rank, place};
use coterie_api::expert_map::ExpertMap;

/// `each[i]` ranks on node i, with memory for everything.
fn ranks(each: &[usize]) -> Vec<Rank> {
    let on_node =
        |(node, &count): (usize, &usize)| std::iter::repeat_n(Rank { node, slots: usize::MAX }, count);
    each.iter().enumerate().flat_map(on_node).collect()
}

fn input<'a>(tokens: &'a [Vec<u64>], ranks: &'a [Rank], redundant: usize) -> Input<'a> {
    Input { tokens, ranks, redundant, groups: 1, current: None, budget: None, together: None }
}

fn placed(input: &Input) -> Placement {
    place(input).unwrap_or_else(|error| panic!("{error}: {input:?}"))
}

/// `[rank]`: tokens, of one layer; copies share evenly.
fn rank_loads(map: &ExpertMap, layer: usize, tokens: &[u64]) -> Vec<f64> {
    let part = |&expert: &u16| {
        let expert = usize::from(expert);
        tokens[expert] as f64 / map.holders(layer, expert).count() as f64
    };
    (0..map.ranks()).map(|rank| map.held(layer, rank).iter().map(part).sum()).collect()
}

fn busiest(map: &ExpertMap, layer: usize, tokens: &[u64]) -> f64 {
    rank_loads(map, layer, tokens).into_iter().fold(0.0, f64::max)
}
