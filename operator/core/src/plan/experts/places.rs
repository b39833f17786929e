//! Where the experts of a replica go: the one place that calls the placement.

use super::View;
use coterie_api::expert_map::ExpertMap;

/// Places on `ranks` ranks, as version that follows `before`; `None` if there can be no such map.
pub(super) fn places(view: &View, ranks: usize, before: Option<&ExpertMap>) -> Option<ExpertMap> {
    let shape = view.target.shape;
    let version = before.map_or(0, ExpertMap::version) + 1;
    even(shape.layers, shape.experts, ranks, view.target.redundant, version)
}

/// Better places for what is asked of the experts, and why; `None` when moving costs more than it gains.
pub(super) fn rebalance(_view: &View, _map: &ExpertMap, _tokens: &[Vec<u64>]) -> Option<(ExpertMap, String)> {
    None
}

/// Neighbours together, each once; then one more copy of each on the next rank, as far as copies go.
fn even(layers: usize, experts: usize, ranks: usize, redundant: usize, version: u64) -> Option<ExpertMap> {
    let map = ExpertMap::even(version, layers, experts, ranks).ok()?;
    let redundant = redundant.min(experts * ranks.saturating_sub(1));
    let layer = |layer: usize| {
        let mut held: Vec<Vec<u16>> = (0..ranks).map(|rank| map.held(layer, rank).to_vec()).collect();
        for copy in 0..redundant {
            let expert = copy % experts;
            let first = map.holders(layer, expert).next().unwrap_or(0);
            let rank = (first + 1 + copy / experts) % ranks;
            // A map has no expert beyond u16.
            held[rank].extend(u16::try_from(expert).ok());
        }
        held
    };
    ExpertMap::new(version, experts, (0..layers).map(layer).collect()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_on_other_ranks_and_as_many_as_asked_for() {
        let slots = |redundant| {
            let map = even(2, 4, 3, redundant, 1).unwrap();
            (0..3).map(|rank| map.slots_of(rank)).sum::<usize>()
        };
        assert_eq!([0, 1, 4, 5, 8, 9, 100].map(slots), [8, 10, 16, 18, 24, 24, 24]);
    }
}
