//! Which ranks have seen the beginning of a prompt: they need not compute it again.
//!
//! Beginnings are told by hashes of blocks of the body's bytes, each with all blocks before it. Blocks grow, so that a
//! long prompt has few. Nothing here is exact: a rank may have dropped what it saw, and a prompt's first bytes may
//! become other tokens in another conversation; a wrong guess costs time, never a wrong answer.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};

/// A rank's process, in one lane of one router.
pub type RankId = u32;

/// The beginnings of one prompt: the hash of each, and its bytes.
pub type Blocks = Vec<(u64, u64)>;

/// Blocks of a prompt that are looked at.
const MOST_BLOCKS: usize = 256;
/// Ranks that are remembered of one beginning; the latest.
const RANKS: usize = 4;
/// Beginnings that are remembered, twice: in the newer and in the older half. About 3 MiB for each lane that is used.
const HALF: usize = 1 << 15;

/// Bytes of the block that begins at `at`.
fn block_length(at: usize) -> usize {
    match at {
        0..4096 => 256,
        4096..65_536 => 1024,
        _ => 4096,
    }
}

/// The beginnings of a prompt behind `tools`, which chat templates put before it.
pub fn blocks(tools: &[u8], prompt: &[u8]) -> Blocks {
    let mut hasher = DefaultHasher::new();
    hasher.write(tools);
    let (mut blocks, mut at) = (Vec::new(), 0);
    while blocks.len() < MOST_BLOCKS {
        let Some(block) = prompt.get(at..at + block_length(at)) else { break };
        hasher.write(block);
        at += block.len();
        blocks.push((hasher.finish(), (tools.len() + at) as u64));
    }
    blocks
}

/// What ranks have seen.
#[derive(Debug, Default)]
pub struct Prefixes {
    newer: HashMap<u64, [RankId; RANKS]>,
    older: HashMap<u64, [RankId; RANKS]>,
}

impl Prefixes {
    /// `rank` is given a prompt. A `RankId` is never 0.
    pub fn saw(&mut self, blocks: &Blocks, rank: RankId) {
        for (hash, _) in blocks {
            if self.newer.len() >= HALF {
                self.older = std::mem::take(&mut self.newer);
            }
            let older = &mut self.older;
            let ranks = self.newer.entry(*hash).or_insert_with(|| older.remove(hash).unwrap_or_default());
            let at = ranks.iter().position(|known| *known == rank).unwrap_or(RANKS - 1);
            ranks[..=at].rotate_right(1);
            ranks[0] = rank;
        }
    }

    /// `rank` is another process now, and has seen nothing.
    pub fn forget(&mut self, rank: RankId) {
        let known = self.newer.values_mut().chain(self.older.values_mut());
        known.flatten().filter(|known| **known == rank).for_each(|known| *known = 0);
    }

    /// How many bytes of the prompt each rank has seen, of those that have seen some.
    pub fn seen(&self, blocks: &Blocks) -> Vec<(RankId, u64)> {
        let mut seen: Vec<(RankId, u64)> = Vec::new();
        let mut before = 0;
        for (hash, bytes) in blocks {
            let Some(ranks) = self.newer.get(hash).or_else(|| self.older.get(hash)) else { break };
            for rank in ranks.iter().filter(|rank| **rank != 0) {
                match seen.iter_mut().find(|(known, _)| known == rank) {
                    Some((_, so_far)) if *so_far == before => *so_far = *bytes,
                    None if before == 0 => seen.push((*rank, *bytes)),
                    _ => {}
                }
            }
            before = *bytes;
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_of_each_rank_counts() {
        let text: Vec<u8> = (0..2000u32).map(|i| (i * i % 251) as u8).collect();
        let mut prefixes = Prefixes::default();
        prefixes.saw(&blocks(b"", &text[..600]), 1);
        prefixes.saw(&blocks(b"", &text[..1300]), 2);
        let mut seen = prefixes.seen(&blocks(b"", &text));
        seen.sort();
        assert_eq!(seen, [(1, 512), (2, 1280)]);
        assert_eq!(prefixes.seen(&blocks(b"[tool]", &text)), [], "other tools come before it");
        assert_eq!(prefixes.seen(&blocks(b"", &text[1..])), []);
    }

    #[test]
    fn the_latest_ranks_are_remembered() {
        let blocks = blocks(b"", &[7; 256]);
        let mut prefixes = Prefixes::default();
        for rank in [1, 2, 3, 4, 5, 2] {
            prefixes.saw(&blocks, rank);
        }
        let ranks: Vec<RankId> = prefixes.seen(&blocks).into_iter().map(|(rank, _)| rank).collect();
        assert_eq!(ranks, [2, 5, 4, 3]);
        prefixes.forget(5);
        assert_eq!(prefixes.seen(&blocks), [(2, 256), (4, 256), (3, 256)]);
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let mut prefixes = Prefixes::default();
        let used = blocks(b"", &[7; 256]);
        for number in 0..(5 * HALF as u64) {
            prefixes.saw(&vec![(number, 256)], 1);
            if number % 1000 == 0 {
                prefixes.saw(&used, 2);
            }
        }
        assert!(prefixes.newer.len() + prefixes.older.len() <= 2 * HALF);
        assert_eq!(prefixes.seen(&used), [(2, 256)]);
    }

    #[test]
    fn a_long_prompt_has_few_blocks() {
        assert_eq!(blocks(b"", &vec![1; 200 << 10]).len(), 16 + 60 + 34);
        assert_eq!(blocks(b"", &vec![1; 10 << 20]).len(), MOST_BLOCKS);
    }
}
