//! Running states: what layers keep for a sequence whatever its length, a sum over all its tokens. They cannot be cut
//! into blocks, so beside the blocks of the cache there are *state slots*, one for each running sequence, and
//! *snapshots*: states as of the end of some block, from which a sequence with the same beginning goes on. The layers
//! hold the memory, and scheduler and block pool the numbers.

use crate::block_pool::BLOCK_SIZE;
use std::ops::Range;

/// How many snapshots there are, and where they are made. All of it is about models that have running states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLimits {
    /// Snapshots that are kept at most.
    pub snapshots: usize,
    /// Blocks from one snapshot of a sequence to the next, in its first `8 · every` blocks.
    pub every: usize,
}

impl StateLimits {
    /// Is a snapshot to be made at the end of the first `tokens` tokens of a sequence that has `of` by now, and has
    /// just computed them? `tokens` is a multiple of the block size.
    ///
    /// One is made at the last end of a block from which the same prompt could go on: its last token must be computed
    /// for its logits. And where two prompts may part, at every `every`-th block, twice as rarely whenever the
    /// sequence is twice as long: what a hit loses is less than a quarter of what there was, and a prompt of a million
    /// tokens does not drive out everybody else's snapshots.
    pub fn is_due(&self, tokens: usize, of: usize) -> bool {
        let blocks = tokens / BLOCK_SIZE;
        let sparser = match blocks / (8 * self.every) {
            0 => 1,
            longer => 2 << longer.ilog2(),
        };
        self.snapshots > 0 && (blocks == (of - 1) / BLOCK_SIZE || blocks.is_multiple_of(self.every * sparser))
    }
}

/// How many states a layer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateRoom {
    /// Of running sequences.
    pub slots: usize,
    /// Kept for others.
    pub snapshots: usize,
}

/// Where a sequence's state comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is zero: no token was before.
    Zero,
    /// A snapshot, as of the tokens before the batch's rows. It is copied, never used in its place.
    Snapshot(u32),
    /// Its slot, as the rows before left it.
    Slot,
}

/// A snapshot to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Save {
    /// Tokens that it contains: a multiple of the block size, reached within the batch's rows.
    pub tokens: usize,
    /// Its number.
    pub snapshot: u32,
}

/// What layers with a running state are told about one sequence of a batch.
///
/// The sequences are to be seen in order: one may begin from a snapshot that another before it saves in the same
/// batch, or save over one from which another before it has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRows {
    /// The sequence's slot.
    pub slot: u32,
    /// What is in it before the rows.
    pub origin: Origin,
    /// Snapshots to make, as a range of [`Batch::saves`](crate::batch::Batch::saves), in order of their tokens.
    pub saves: Range<usize>,
}

/// A running sequence's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningState {
    /// Its slot.
    pub slot: u32,
    /// Where its next rows find it.
    pub origin: Origin,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(every: usize, of: usize) -> Vec<usize> {
        let limits = StateLimits { snapshots: 1, every };
        (1..=of / BLOCK_SIZE).filter(|blocks| limits.is_due(blocks * BLOCK_SIZE, of)).collect()
    }

    #[test]
    fn a_prompt_ends_with_a_snapshot_from_which_it_could_go_on() {
        assert_eq!(due(100, 16), [0; 0]);
        assert_eq!(due(100, 17), [1]);
        assert_eq!(due(100, 80), [4]);
        assert_eq!(due(100, 81), [5]);
    }

    #[test]
    fn snapshots_become_sparse() {
        let last = 70;
        assert_eq!(due(2, 16 * last + 1), [2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 70]);
        let all = due(1, 16 * 100_000);
        assert!(all.len() < 80, "{}", all.len());
        // Wherever two prompts part, a snapshot is within a quarter of it.
        assert!(all.windows(2).all(|pair| pair[1] <= 4 || (pair[1] - pair[0]) * 4 <= pair[1]), "{all:?}");
    }

    #[test]
    fn decoding_saves_at_the_regular_places_only() {
        let limits = StateLimits { snapshots: 1, every: 3 };
        let due: Vec<usize> =
            (1..100).filter(|tokens| tokens % 16 == 0 && limits.is_due(*tokens, *tokens)).collect();
        assert_eq!(due, [48, 96]);
        assert!(!StateLimits { snapshots: 0, every: 1 }.is_due(16, 17), "there is no room for any");
    }
}
