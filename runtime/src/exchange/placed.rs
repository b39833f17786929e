//! An expert map by expert: who holds it, found without a search.

use coterie_api::expert_map::ExpertMap;
use std::ops::Deref;

/// An expert map and, for each expert of each layer, its holders.
#[derive(Debug)]
pub struct Placed {
    map: ExpertMap,
    /// `[layer · experts + expert]`: ranks in order.
    holders: Vec<Box<[u16]>>,
}

impl Placed {
    /// `map`, turned round.
    pub fn new(map: ExpertMap) -> Placed {
        let mut holders = vec![Vec::new(); map.layers() * map.experts()];
        for layer in 0..map.layers() {
            for rank in 0..map.ranks() {
                for &expert in map.held(layer, rank) {
                    holders[layer * map.experts() + usize::from(expert)].push(rank as u16);
                }
            }
        }
        Placed { map, holders: holders.into_iter().map(Vec::into_boxed_slice).collect() }
    }

    /// The ranks that hold an expert, in order; at least one.
    ///
    /// # Panics
    /// If there is no such layer or expert.
    pub fn holders(&self, layer: usize, expert: usize) -> &[u16] {
        &self.holders[layer * self.map.experts() + expert]
    }

    /// Whether every expert has a holder of which `lives` is true.
    pub fn covered(&self, lives: impl Fn(u16) -> bool) -> bool {
        self.holders.iter().all(|holders| holders.iter().any(|&rank| lives(rank)))
    }
}

impl Deref for Placed {
    type Target = ExpertMap;

    fn deref(&self) -> &ExpertMap {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_who_holds_what_and_what_is_lost_without_whom() {
        let layers = vec![vec![vec![0, 1], vec![1, 2]], vec![vec![2], vec![0, 1]]];
        let placed = Placed::new(ExpertMap::new(1, 3, layers).unwrap());
        assert_eq!(placed.holders(0, 1), [0, 1]);
        assert_eq!((placed.holders(0, 2), placed.holders(1, 2)), (&[1][..], &[0][..]));
        assert!(placed.covered(|_| true) && !placed.covered(|rank| rank != 1));
    }
}
