//! For every expert the set of ranks that hold it, as bits.

/// One set for each expert.
#[derive(Clone, Debug)]
pub(super) struct RankSets {
    words: usize,
    bits: Vec<u64>,
}

impl RankSets {
    pub(super) fn new(experts: usize, ranks: usize) -> RankSets {
        let words = ranks.div_ceil(64);
        RankSets { words, bits: vec![0; experts * words] }
    }

    pub(super) fn contains(&self, expert: usize, rank: usize) -> bool {
        self.bits[expert * self.words + rank / 64] >> (rank % 64) & 1 == 1
    }

    pub(super) fn insert(&mut self, expert: usize, rank: usize) {
        self.bits[expert * self.words + rank / 64] |= 1 << (rank % 64);
    }

    pub(super) fn remove(&mut self, expert: usize, rank: usize) {
        self.bits[expert * self.words + rank / 64] &= !(1 << (rank % 64));
    }

    /// The ranks that hold `expert`, in order.
    pub(super) fn of(&self, expert: usize) -> impl Iterator<Item = usize> + '_ {
        let words = &self.bits[expert * self.words..(expert + 1) * self.words];
        words.iter().enumerate().flat_map(|(at, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(at * 64 + bit)
            })
        })
    }

    /// Becomes `other`, which has as many experts and ranks, without new memory.
    pub(super) fn become_as(&mut self, other: &RankSets) {
        self.bits.copy_from_slice(&other.bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_and_go() {
        let mut sets = RankSets::new(3, 130);
        for rank in [129, 0, 64, 63] {
            sets.insert(1, rank);
        }
        assert_eq!(sets.of(1).collect::<Vec<_>>(), [0, 63, 64, 129]);
        sets.remove(1, 64);
        assert!(sets.contains(1, 63) && !sets.contains(1, 64) && !sets.contains(2, 63));
        assert_eq!((sets.of(1).count(), sets.of(0).count()), (3, 0));
    }
}
