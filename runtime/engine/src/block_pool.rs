//! Which blocks of the cache are free, held or kept. A block is [`BLOCK_SIZE`] tokens' worth of every layer's state,
//! whatever a layer keeps for a token; the layers hold the memory, this file only the numbers.
//!
//! A block is *held* by the sequences whose tables list it. A full one can be *published* under the tokens that it and
//! those before it stand for; whoever has the same tokens may hold it too, and nobody writes to it any more. When its
//! last holder leaves, a published block is *kept* until the room is needed, the longest unused first.
//!
//! For a model with running states (see [`state`](crate::state)) a block alone is not enough to go on behind it: there
//! must be a snapshot, too.

mod recency;
mod snapshots;

use crate::prefix::{BlockTokens, Prefix, Published};
use recency::Recency;
use snapshots::Snapshots;

/// Tokens in a block.
pub const BLOCK_SIZE: usize = 16;

/// Blocks that hold `tokens` tokens.
pub fn blocks_for(tokens: usize) -> usize {
    tokens.div_ceil(BLOCK_SIZE)
}

/// All blocks of a cache.
#[derive(Debug)]
pub struct BlockPool {
    /// Free blocks that stand for nothing: a stack. The lowest block is on top at first, and what was used last is
    /// used next, so that no more memory is touched than is needed.
    blank: Vec<u32>,
    /// `[blocks]`: tables that list the block.
    holders: Vec<u32>,
    published: Published,
    /// Published blocks that nobody holds.
    kept: Recency,
    /// None where blocks are all there is.
    snapshots: Option<Snapshots>,
}

impl BlockPool {
    /// A pool of `blocks` blank blocks; with as many snapshots, if the model has running states.
    pub fn new(blocks: usize, snapshots: Option<usize>) -> BlockPool {
        BlockPool {
            blank: (0..blocks as u32).rev().collect(),
            holders: vec![0; blocks],
            published: Published::default(),
            kept: Recency::new(blocks),
            snapshots: snapshots.map(Snapshots::new),
        }
    }

    /// Blocks in all.
    pub fn blocks(&self) -> usize {
        self.holders.len()
    }

    /// Blocks that nobody holds.
    pub fn free(&self) -> usize {
        self.blank.len() + self.kept.len()
    }

    /// Adds free blocks to `table` until it has `blocks`, or takes none and says no.
    pub fn extend(&mut self, table: &mut Vec<u32>, blocks: usize) -> bool {
        let more = blocks.saturating_sub(table.len());
        if more > self.free() {
            return false;
        }
        for _ in 0..more {
            let block = self.blank.pop().unwrap_or_else(|| {
                let block = self.kept.pop_oldest().expect("so many blocks are free");
                if let (Some(name), Some(snapshots)) = (self.published.withdraw(block), &mut self.snapshots) {
                    snapshots.withdraw(name);
                }
                block
            });
            self.holders[block as usize] = 1;
            table.push(block);
        }
        true
    }

    /// Gives all of `table`'s blocks up.
    pub fn take_back(&mut self, table: &mut Vec<u32>) {
        // The last first: of a kept beginning, the end goes before what it builds on.
        for block in table.drain(..).rev() {
            let holders = &mut self.holders[block as usize];
            *holders = holders.checked_sub(1).expect("a block is given back once");
            if *holders == 0 {
                match self.published.is_published(block) {
                    true => self.kept.push_newest(block),
                    false => self.blank.push(block),
                }
            }
        }
    }

    /// Publishes `block`, full of `tokens` that follow `before`. Returns the name of the longer beginning. If another
    /// block is published under it already, this one stays its holder's own.
    pub fn publish(&mut self, block: u32, before: Prefix, tokens: &BlockTokens) -> Prefix {
        debug_assert!(self.holders[block as usize] > 0, "who publishes a block holds it");
        self.published.publish(block, before, tokens)
    }

    /// Adds the block that stands for `tokens` behind `before` to `table`, if there is one, and returns the name of
    /// the longer beginning.
    pub fn share(&mut self, table: &mut Vec<u32>, before: Prefix, tokens: &BlockTokens) -> Option<Prefix> {
        let (block, prefix) = self.published.find(before, tokens)?;
        let holders = &mut self.holders[block as usize];
        if *holders == 0 {
            self.kept.remove(block);
        }
        *holders += 1;
        table.push(block);
        Some(prefix)
    }

    /// The longer beginning, if a block that somebody holds stands for `tokens` behind `before`.
    pub fn held_by_others(&self, before: Prefix, tokens: &BlockTokens) -> Option<Prefix> {
        let (block, prefix) = self.published.find(before, tokens)?;
        (self.holders[block as usize] > 0).then_some(prefix)
    }

    /// The longer beginning, if a block stands for `tokens` behind `before`.
    pub fn find(&self, before: Prefix, tokens: &BlockTokens) -> Option<Prefix> {
        self.published.find(before, tokens).map(|(_, prefix)| prefix)
    }

    /// Can a sequence that has the blocks of a beginning go on behind them?
    pub fn is_whole(&self, beginning: Prefix) -> bool {
        self.snapshots.as_ref().is_none_or(|snapshots| snapshots.find(beginning).is_some())
    }

    /// The snapshot of a beginning, which is then the last that makes room for another.
    pub fn take_snapshot(&mut self, beginning: Prefix) -> Option<u32> {
        self.snapshots.as_mut()?.take(beginning)
    }

    /// The snapshot that is to be made for a beginning; none if there is one, or no room for any.
    pub fn make_snapshot(&mut self, beginning: Prefix) -> Option<u32> {
        self.snapshots.as_mut()?.make(beginning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: BlockTokens = [1; BLOCK_SIZE];
    const B: BlockTokens = [2; BLOCK_SIZE];
    const ROOT: Prefix = Prefix::Empty { scope: 0 };

    #[test]
    fn a_table_grows_whole_or_not_at_all() {
        let mut pool = BlockPool::new(3, None);
        let (mut one, mut two) = (Vec::new(), Vec::new());
        assert!(pool.extend(&mut one, 2));
        assert_eq!(one, [0, 1]);
        assert!(pool.extend(&mut one, 1), "it has that many already");
        assert!(!pool.extend(&mut two, 2));
        assert!(two.is_empty() && pool.free() == 1);
        pool.take_back(&mut one);
        assert_eq!((pool.free(), one.len()), (3, 0));
        assert!(pool.extend(&mut two, 3));
        assert_eq!(two, [0, 1, 2]);
    }

    #[test]
    #[should_panic(expected = "given back once")]
    fn a_block_is_not_given_back_twice() {
        let mut pool = BlockPool::new(1, None);
        let mut table = Vec::new();
        assert!(pool.extend(&mut table, 1));
        pool.take_back(&mut table.clone());
        pool.take_back(&mut table);
    }

    #[test]
    fn a_published_block_is_shared_and_kept_until_the_room_is_needed() {
        let mut pool = BlockPool::new(3, None);
        let (mut one, mut two) = (Vec::new(), Vec::new());
        pool.extend(&mut one, 2);
        let a = pool.publish(one[0], ROOT, &A);
        pool.publish(one[1], a, &B);
        assert_eq!(pool.share(&mut two, ROOT, &A), Some(a));
        assert_eq!(two, [one[0]]);
        assert_eq!(pool.share(&mut Vec::new(), Prefix::Empty { scope: 1 }, &A), None);
        pool.take_back(&mut one);
        assert_eq!(pool.free(), 2, "the first is still held");
        assert_eq!((pool.held_by_others(ROOT, &A), pool.held_by_others(a, &B)), (Some(a), None));
        pool.take_back(&mut two);
        assert_eq!(pool.free(), 3);

        // The blank one goes first, then the end of the beginning, then its start.
        let mut other = Vec::new();
        pool.extend(&mut other, 2);
        assert_eq!(pool.share(&mut Vec::new(), a, &B), None);
        assert!(pool.share(&mut two, ROOT, &A).is_some());
        assert!(!pool.extend(&mut other, 3));
        pool.take_back(&mut two);
        assert!(pool.extend(&mut other, 3));
        assert_eq!(pool.share(&mut two, ROOT, &A), None);
    }

    #[test]
    fn a_second_block_of_the_same_tokens_stays_its_holders_own() {
        let mut pool = BlockPool::new(2, None);
        let (mut one, mut two) = (Vec::new(), Vec::new());
        pool.extend(&mut one, 1);
        pool.extend(&mut two, 1);
        let a = pool.publish(one[0], ROOT, &A);
        assert_eq!(pool.publish(two[0], ROOT, &A), a);
        pool.take_back(&mut two);
        assert_eq!(pool.blank, [1]);
        pool.take_back(&mut one);
        assert_eq!(pool.free(), 2);
    }

    #[test]
    fn a_snapshot_goes_with_its_block_and_a_block_stays_without_its_snapshot() {
        let mut pool = BlockPool::new(2, Some(1));
        let mut table = Vec::new();
        pool.extend(&mut table, 2);
        let a = pool.publish(table[0], ROOT, &A);
        let b = pool.publish(table[1], a, &B);
        assert!(!pool.is_whole(a));
        assert_eq!((pool.make_snapshot(a), pool.make_snapshot(a)), (Some(0), None));
        assert!(pool.is_whole(a));
        assert_eq!(pool.make_snapshot(b), Some(0));
        assert_eq!((pool.find(ROOT, &A), pool.is_whole(a), pool.take_snapshot(b)), (Some(a), false, Some(0)));

        pool.take_back(&mut table);
        assert!(pool.is_whole(b), "a kept block keeps it");
        pool.extend(&mut table, 1);
        assert_eq!((pool.take_snapshot(b), pool.make_snapshot(a)), (None, Some(0)));
    }

    #[derive(Clone, Debug)]
    enum Act {
        Extend(usize, usize),
        TakeBack(usize),
        Share(usize, u32),
        Publish(usize, u32),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0usize..4, 1usize..4).prop_map(|(t, n)| Act::Extend(t, n)),
            (0usize..4).prop_map(Act::TakeBack),
            (0usize..4, 0u32..3).prop_map(|(t, token)| Act::Share(t, token)),
            (0usize..4, 0u32..3).prop_map(|(t, token)| Act::Publish(t, token)),
        ]
    }

    proptest! {
        /// Whatever is done: a block is free or held, and what is found stands for the tokens that it was found by.
        #[test]
        fn blocks_are_never_lost_nor_mistaken(acts in prop::collection::vec(act(), 0..80)) {
            let mut pool = BlockPool::new(6, None);
            let mut tables: Vec<Vec<u32>> = vec![Vec::new(); 4];
            // What was last published of each block.
            let mut content: Vec<Option<u32>> = vec![None; 6];
            for act in acts {
                match act {
                    Act::Extend(t, more) => {
                        let had = tables[t].len();
                        pool.extend(&mut tables[t], had + more);
                        for block in &tables[t][had..] {
                            content[*block as usize] = None;
                        }
                    }
                    Act::TakeBack(t) => pool.take_back(&mut tables[t]),
                    Act::Share(t, token) => {
                        if pool.share(&mut tables[t], ROOT, &[token; BLOCK_SIZE]).is_some() {
                            prop_assert_eq!(content[*tables[t].last().unwrap() as usize], Some(token));
                        }
                    }
                    Act::Publish(t, token) => {
                        let own = tables[t].iter().find(|block| content[**block as usize].is_none()).copied();
                        if let Some(block) = own {
                            pool.publish(block, ROOT, &[token; BLOCK_SIZE]);
                            if pool.published.is_published(block) {
                                content[block as usize] = Some(token);
                            }
                        }
                    }
                }
                let held: std::collections::BTreeSet<u32> = tables.iter().flatten().copied().collect();
                prop_assert_eq!(pool.free() + held.len(), 6);
            }
            tables.iter_mut().for_each(|table| pool.take_back(table));
            prop_assert_eq!(pool.free(), 6);
        }
    }
}
