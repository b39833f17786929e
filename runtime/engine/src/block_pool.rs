//! Which blocks of the cache are free. A block is [`BLOCK_SIZE`] tokens' worth of every layer's state; the layers
//! hold the memory, this file only the numbers.

/// Tokens in a block.
pub const BLOCK_SIZE: usize = 16;

/// Blocks that hold `tokens` tokens.
pub fn blocks_for(tokens: usize) -> usize {
    tokens.div_ceil(BLOCK_SIZE)
}

/// The free blocks.
#[derive(Debug)]
pub struct BlockPool {
    /// A stack; the lowest block is on top at first, and what was used last is used next, so that no more memory is
    /// touched than is needed at once.
    free: Vec<u32>,
    blocks: usize,
}

impl BlockPool {
    /// A pool of `blocks` free blocks.
    pub fn new(blocks: usize) -> BlockPool {
        BlockPool { free: (0..blocks as u32).rev().collect(), blocks }
    }

    /// Blocks in all.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Blocks that hold nothing.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Adds free blocks to `table` until it has `blocks`, or takes none and says no.
    pub fn extend(&mut self, table: &mut Vec<u32>, blocks: usize) -> bool {
        let more = blocks.saturating_sub(table.len());
        let enough = more <= self.free.len();
        if enough {
            table.extend(self.free.drain(self.free.len() - more..).rev());
        }
        enough
    }

    /// Takes back all of `table`'s blocks.
    pub fn take_back(&mut self, table: &mut Vec<u32>) {
        assert!(self.free.len() + table.len() <= self.blocks, "a block is given back once");
        self.free.extend(table.drain(..).rev());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_grows_whole_or_not_at_all() {
        let mut pool = BlockPool::new(3);
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
        let mut pool = BlockPool::new(1);
        let mut table = Vec::new();
        assert!(pool.extend(&mut table, 1));
        pool.take_back(&mut table.clone());
        pool.take_back(&mut table);
    }
}
