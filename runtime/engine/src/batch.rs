//! One step's work as plain arrays: a row is one token of one sequence.

use crate::request::Sampling;
use crate::state::{RunningState, Save, StateRows};
use std::ops::Range;

/// The rows of one sequence in a [`Batch`], and the cache that they see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceRows {
    /// Rows of the batch: the sequence's newest tokens, in order.
    pub rows: Range<usize>,
    /// The sequence's blocks, as a range of [`Batch::tables`].
    pub table: Range<usize>,
    /// Tokens in the cache once these rows are in it.
    pub context: usize,
    /// Its running state, if the model's layers have any.
    pub state: Option<StateRows>,
}

/// What one forward pass computes. Cleared and filled again each step, so it allocates only while it grows.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// `[rows]` token ids.
    pub tokens: Vec<u32>,
    /// `[rows]` positions in their sequences, from 0.
    pub positions: Vec<u32>,
    /// `[rows]` places in the cache: block × block size + offset.
    pub slots: Vec<u32>,
    /// Who the rows belong to; covers all rows in order.
    pub sequences: Vec<SequenceRows>,
    /// The block tables of all sequences, one behind the other.
    pub tables: Vec<u32>,
    /// Rows whose logits are wanted, ascending.
    pub logit_rows: Vec<u32>,
    /// Nothing, or for each of `logit_rows` how a device may draw the token behind it.
    pub draws: Vec<Draw>,
    /// The snapshots that all sequences make, those of one behind the other's.
    pub saves: Vec<Save>,
}

/// How a token is drawn from a row of logits as they are, with nothing that only this process knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// At 0 and below, and where it is NaN, the most probable token is taken.
    pub temperature: f32,
    /// As [`Sampling::top_p`].
    pub top_p: f32,
    /// As [`Sampling::min_p`], at most 1.
    pub min_p: f32,
    /// As [`Sampling::top_k`].
    pub top_k: u32,
    /// As [`Sampling::seed`].
    pub seed: u64,
    /// Tokens of the answer before.
    pub index: u64,
}

impl Draw {
    /// The most probable token.
    pub const BEST: Draw = Draw { temperature: 0.0, top_p: 1.0, min_p: 0.0, top_k: 0, seed: 0, index: 0 };

    /// Token number `index` of an answer.
    pub fn of(sampling: &Sampling, index: usize) -> Draw {
        Draw {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            min_p: sampling.min_p.min(1.0),
            top_k: u32::try_from(sampling.top_k).unwrap_or(u32::MAX),
            seed: sampling.seed,
            index: index as u64,
        }
    }
}

impl Batch {
    /// Takes everything out.
    pub fn clear(&mut self) {
        let Batch { tokens, positions, slots, sequences, tables, logit_rows, draws, saves } = self;
        [tokens, positions, slots, tables, logit_rows].into_iter().for_each(Vec::clear);
        sequences.clear();
        draws.clear();
        saves.clear();
    }

    /// How many tokens the batch computes.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Adds `tokens`, the newest of a sequence whose cache holds `computed` tokens already, in `block_size`-token
    /// blocks that `table` lists. Returns the first row.
    pub fn push(&mut self, tokens: &[u32], computed: usize, table: &[u32], block_size: usize) -> usize {
        let (first, first_block) = (self.rows(), self.tables.len());
        self.tables.extend_from_slice(table);
        let table = first_block..self.tables.len();
        self.sequences.push(SequenceRows { rows: first..first, table, context: computed, state: None });
        self.extend(tokens, block_size);
        first
    }

    /// Adds `tokens` behind those of the sequence that was pushed last.
    pub fn extend(&mut self, tokens: &[u32], block_size: usize) {
        let sequence = self.sequences.last_mut().expect("a sequence is pushed before it is extended");
        let table = &self.tables[sequence.table.clone()];
        for position in sequence.context..sequence.context + tokens.len() {
            self.positions.push(position as u32);
            self.slots
                .push(table[position / block_size] * block_size as u32 + (position % block_size) as u32);
        }
        self.tokens.extend_from_slice(tokens);
        sequence.rows.end = self.tokens.len();
        sequence.context += tokens.len();
    }

    /// Tells the layers about the running state of the sequence that was pushed last, which also makes the snapshots
    /// in [`saves`](Batch::saves) from `first_save` on.
    pub fn push_state(&mut self, state: RunningState, first_save: usize) {
        let RunningState { slot, origin } = state;
        let saves = first_save..self.saves.len();
        self.sequences.last_mut().expect("rows are pushed before their state").state =
            Some(StateRows { slot, origin, saves });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_know_their_place_in_the_cache() {
        let mut batch = Batch::default();
        assert_eq!(batch.push(&[7, 8, 9], 3, &[5, 2], 4), 0);
        assert_eq!(batch.push(&[], 0, &[3], 4), 3);
        batch.extend(&[1], 4);
        assert_eq!(batch.positions, [3, 4, 5, 0]);
        assert_eq!(batch.slots, [5 * 4 + 3, 2 * 4, 2 * 4 + 1, 3 * 4]);
        assert_eq!(batch.sequences[0], SequenceRows { rows: 0..3, table: 0..2, context: 6, state: None });
        assert_eq!(batch.sequences[1], SequenceRows { rows: 3..4, table: 2..3, context: 1, state: None });
        batch.clear();
        assert_eq!(batch.rows(), 0);
        assert!(batch.sequences.is_empty() && batch.tables.is_empty());
    }
}
