//! The prefix cache's index: which block stands for which tokens. A block's state depends on all tokens up to its end,
//! so a beginning is named by its last block, and a block is found by (beginning, its own tokens).
//!
//! The map compares the tokens themselves, not a hash of them: two different beginnings can never be taken for one
//! another, by chance or by an attacker. A beginning's name is never used again, so what was published behind one that
//! is gone is not found any more, and goes when its turn comes.

use crate::block_pool::BLOCK_SIZE;
use std::collections::HashMap;

/// The tokens of one block.
pub type BlockTokens = [u32; BLOCK_SIZE];

/// Names the tokens up to the end of some block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// No token yet. Scopes share nothing.
    Empty {
        /// Which.
        scope: u64,
    },
    /// The number of what was published.
    Published(u64),
}

/// The blocks that are published.
#[derive(Debug, Default)]
pub struct Published {
    blocks: HashMap<Key, u32>,
    /// What each block is published as; as long as it must be.
    entries: Vec<Option<Entry>>,
    next_number: u64,
}

type Key = (Prefix, BlockTokens);

#[derive(Debug)]
struct Entry {
    key: Key,
    name: Prefix,
}

impl Published {
    /// The block that stands for `tokens` behind `before`, and the name of both together.
    pub fn find(&self, before: Prefix, tokens: &BlockTokens) -> Option<(u32, Prefix)> {
        let block = *self.blocks.get(&(before, *tokens))?;
        let entry = self.entries[block as usize].as_ref().expect("the map names published blocks only");
        Some((block, entry.name))
    }

    /// Publishes `block`, unless another is published as the same. Returns the name of `before` and `tokens` together.
    pub fn publish(&mut self, block: u32, before: Prefix, tokens: &BlockTokens) -> Prefix {
        if let Some((_, name)) = self.find(before, tokens) {
            return name;
        }
        let (key, name) = ((before, *tokens), Prefix::Published(self.next_number));
        self.next_number += 1;
        self.blocks.insert(key, block);
        if self.entries.len() <= block as usize {
            self.entries.resize_with(block as usize + 1, || None);
        }
        let previous = self.entries[block as usize].replace(Entry { key, name });
        assert!(previous.is_none(), "a block is published once");
        name
    }

    /// The block stands for nothing any more. Returns the name that it had.
    pub fn withdraw(&mut self, block: u32) -> Option<Prefix> {
        let entry = self.entries.get_mut(block as usize).and_then(Option::take)?;
        self.blocks.remove(&entry.key);
        Some(entry.name)
    }

    /// Does the block stand for something?
    pub fn is_published(&self, block: u32) -> bool {
        self.entries.get(block as usize).is_some_and(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_tokens_behind_another_beginning_are_another_block() {
        let (a, b) = ([1; BLOCK_SIZE], [2; BLOCK_SIZE]);
        let empty = Prefix::Empty { scope: 7 };
        let mut published = Published::default();
        let first = published.publish(0, empty, &a);
        let twice = published.publish(1, first, &a);
        assert_ne!(first, twice);
        assert_eq!(published.find(empty, &a), Some((0, first)));
        assert_eq!(published.find(first, &a), Some((1, twice)));
        assert_eq!((published.find(empty, &b), published.find(Prefix::Empty { scope: 8 }, &a)), (None, None));

        // A beginning that is published again has a new name: nothing old is found behind it.
        published.withdraw(0);
        assert_eq!(published.find(empty, &a), None);
        let again = published.publish(2, empty, &a);
        assert_eq!(published.find(again, &a), None);
        assert!(published.is_published(1) && !published.is_published(0));
    }
}
