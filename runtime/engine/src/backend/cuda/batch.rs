//! A batch's arrays in the device's memory, brought there in one piece.

use super::memory::{Buffer, Lists, Spare};
use crate::batch::{Batch, SequenceRows};
use crate::block_pool::BLOCK_SIZE;
use crate::state::{Origin, StateRows};
use coterie_kernels::cuda::attention::CHUNK;
use coterie_kernels::cuda::device::Device;
use coterie_kernels::cuda::launch::Address;
use coterie_kernels::cuda::lightning::{Save, Sequence};
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

/// A sequence of at most so many rows counts as one that decodes: its keys are spread over blocks.
const DECODE_ROWS: usize = 16;

/// Rows times chunks of keys that one launch spreads at most, as each leaves something in memory.
pub(super) const SPREAD: usize = 8192;

/// Blocks of the cache that a chunk of keys is in.
pub(super) const BLOCKS_OF_CHUNK: usize = CHUNK as usize / BLOCK_SIZE;

/// A batch where kernels read it.
pub struct CudaBatch<D: Device> {
    /// Rows of all sequences.
    pub(super) rows: usize,
    /// One more than the largest position.
    pub(super) positions: usize,
    pub(super) token_ids: Address,
    /// Of each row.
    pub(super) row_positions: Address,
    /// Of each row.
    pub(super) slots: Address,
    /// Sequences that are attended to in one launch each.
    pub(super) runs: Vec<Run>,
    /// Running states that are brought up to date in one launch each.
    pub(super) waves: Vec<Wave>,
    /// The snapshots that they make.
    pub(super) saves: Address,
    /// How tokens are drawn, of each row of a batch that is repeated.
    pub(super) draws: Address,
    pub(super) _memory: Buffer<D>,
}

/// Neighbouring sequences that all decode, or none of them.
pub(super) struct Run {
    /// Rows of the batch.
    pub(super) rows: Range<usize>,
    pub(super) sequences: u32,
    pub(super) most_rows: u32,
    pub(super) decodes: bool,
    /// As [`Attention`](coterie_kernels::cuda::attention::Attention) has it; rows are counted from the run's first.
    pub(super) first_rows: Address,
    pub(super) contexts: Address,
    pub(super) tables: Address,
    pub(super) table_width: u32,
    /// Whole and begun [`CHUNK`]s of the longest context.
    pub(super) chunks: u32,
}

/// Neighbouring sequences none of which begins from what another one saves, or saves what it begins from.
pub(super) struct Wave {
    pub(super) first: Address,
    pub(super) sequences: u32,
}

impl<D: Device> CudaBatch<D> {
    pub(super) fn new(batch: &Batch, spare: &Rc<Spare<D>>) -> Self {
        let mut words = Lists::default();
        let [token_ids, row_positions, slots] =
            [&batch.tokens, &batch.positions, &batch.slots].map(|array| words.push(array.iter().copied()));
        let mut runs: Vec<Run> = runs(&batch.sequences)
            .into_iter()
            .map(|sequences| Run::new(batch, &batch.sequences[sequences], &mut words))
            .collect();
        let mut waves = waves(batch, &mut words);
        let saves = batch.saves.iter().flat_map(|save| [save.tokens as u32, save.snapshot]);
        let saves = words.push(saves);

        let memory = spare.with(&words.0);
        let base = memory.address();
        for run in &mut runs {
            for address in [&mut run.first_rows, &mut run.contexts, &mut run.tables] {
                *address += base;
            }
        }
        waves.iter_mut().for_each(|wave| wave.first += base);
        CudaBatch {
            rows: batch.rows(),
            positions: batch.sequences.iter().map(|sequence| sequence.context).max().unwrap_or(0),
            token_ids: base + token_ids,
            row_positions: base + row_positions,
            slots: base + slots,
            runs,
            waves,
            saves: base + saves,
            draws: 0,
            _memory: memory,
        }
    }
}

/// A sequence's blocks, and others behind them that nobody looks at.
pub(super) fn table(batch: &Batch, sequence: &SequenceRows, width: usize) -> impl Iterator<Item = u32> {
    let blocks = &batch.tables[sequence.table.clone()];
    let blocks = &blocks[..blocks.len().min(width)];
    blocks.iter().copied().chain(std::iter::repeat_n(0, width - blocks.len()))
}

pub(super) fn decodes(sequence: &SequenceRows) -> bool {
    sequence.rows.len() <= DECODE_ROWS
}

pub(super) fn chunks(sequence: &SequenceRows) -> usize {
    sequence.context.div_ceil(CHUNK as usize)
}

/// Cuts the sequences into runs, of those that decode no more than can be spread.
fn runs(sequences: &[SequenceRows]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let (mut rows, mut longest) = (0, 0);
    for (number, sequence) in sequences.iter().enumerate() {
        let (with_its, with_longest) = (rows + sequence.rows.len(), longest.max(chunks(sequence)));
        match runs.last_mut() {
            Some(run)
                if decodes(&sequences[run.start]) == decodes(sequence)
                    && (!decodes(sequence) || with_its * with_longest <= SPREAD) =>
            {
                run.end = number + 1;
                (rows, longest) = (with_its, with_longest);
            }
            _ => {
                runs.push(number..number + 1);
                (rows, longest) = (sequence.rows.len(), chunks(sequence));
            }
        }
    }
    runs
}

impl Run {
    fn new(batch: &Batch, sequences: &[SequenceRows], words: &mut Lists<u32>) -> Run {
        let rows = sequences[0].rows.start..sequences[sequences.len() - 1].rows.end;
        let ends = sequences.iter().map(|sequence| (sequence.rows.end - rows.start) as u32);
        let table_width = sequences.iter().map(|sequence| sequence.table.len()).max().unwrap_or(0);
        Run {
            sequences: sequences.len() as u32,
            most_rows: sequences.iter().map(|sequence| sequence.rows.len()).max().unwrap_or(0) as u32,
            decodes: decodes(&sequences[0]),
            first_rows: words.push(std::iter::once(0).chain(ends)),
            contexts: words.push(sequences.iter().map(|sequence| sequence.context as u32)),
            tables: words.push(sequences.iter().flat_map(|of| table(batch, of, table_width))),
            table_width: table_width as u32,
            chunks: sequences.iter().map(chunks).max().unwrap_or(0) as u32,
            rows,
        }
    }
}

/// Cuts the sequences with running states, which are to be seen in order, into as few launches as can be.
pub(super) fn waves(batch: &Batch, words: &mut Lists<u32>) -> Vec<Wave> {
    let mut waves: Vec<Wave> = Vec::new();
    let (mut read, mut written) = (BTreeSet::new(), BTreeSet::new());
    for SequenceRows { rows, context, state, .. } in &batch.sequences {
        let Some(StateRows { slot, origin, saves }) = state else { continue };
        let of_snapshot = match origin {
            Origin::Snapshot(snapshot) => Some(*snapshot),
            Origin::Zero | Origin::Slot => None,
        };
        let own = || batch.saves[saves.clone()].iter().map(|save| save.snapshot);
        let meets = of_snapshot.is_some_and(|snapshot| written.contains(&snapshot))
            || own().any(|snapshot| read.contains(&snapshot) || written.contains(&snapshot));
        if meets {
            (read, written) = (BTreeSet::new(), BTreeSet::new());
        }
        read.extend(of_snapshot);
        written.extend(own());
        let first = words.push(fields(Sequence {
            first_row: rows.start as u32,
            rows: rows.len() as u32,
            position: (context - rows.len()) as u32,
            slot: *slot,
            origin: match origin {
                Origin::Zero => 0,
                Origin::Slot => 1,
                Origin::Snapshot(snapshot) => snapshot + 2,
            },
            first_save: saves.start as u32,
            saves: saves.len() as u32,
        }));
        match waves.last_mut() {
            Some(wave) if !meets => wave.sequences += 1,
            _ => waves.push(Wave { first, sequences: 1 }),
        }
    }
    waves
}

/// The words that the kernel reads as a sequence.
pub(super) fn fields(sequence: Sequence) -> [u32; 7] {
    const _: () = assert!(size_of::<Sequence>() == 28 && size_of::<Save>() == 8);
    let Sequence { first_row, rows, position, slot, origin, first_save, saves } = sequence;
    [first_row, rows, position, slot, origin, first_save, saves]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(rows_and_contexts: &[[usize; 2]]) -> Vec<Range<usize>> {
        let mut first = 0;
        let sequences = rows_and_contexts.iter().map(|&[rows, context]| {
            first += rows;
            SequenceRows {
                rows: first - rows..first,
                table: 0..context.div_ceil(BLOCK_SIZE),
                context,
                state: None,
            }
        });
        runs(&sequences.collect::<Vec<_>>())
    }

    #[test]
    fn runs_are_of_one_kind_and_leave_no_more_than_fits() {
        assert!(cut(&[]).is_empty());
        assert_eq!(cut(&[[1, 9], [16, 99], [17, 99], [500, 500], [2, 2]]), [0..2, 2..4, 4..5]);
        // 4 rows of 2048 chunks each are as many as can be.
        let long = 2048 * CHUNK as usize;
        assert_eq!(cut(&[[1, long], [3, 5], [1, 5], [1, long]]), [0..2, 2..4]);
        assert_eq!(cut(&[[16, long], [16, long]]), [0..1, 1..2]);
    }
}
