//! A batch at fixed places in the device's memory, where graphs find the next one again.

use super::batch::{CudaBatch, Run, Wave, fields, table, waves};
use super::graphs::Size;
use super::memory::{Buffer, Lists};
use crate::batch::{Batch, Draw};
use coterie_kernels::cuda::attention::CHUNK;
use coterie_kernels::cuda::device::Device;
use coterie_kernels::cuda::launch::{Address, NO_SLOT};
use coterie_kernels::cuda::lightning::Sequence;
use coterie_kernels::cuda::sample::Rule;
use std::ops::Range;

/// Where the arrays of a batch of fixed size begin, bytes.
pub(super) struct Places {
    draws: Address,
    token_ids: Address,
    row_positions: Address,
    slots: Address,
    first_rows: Address,
    contexts: Address,
    tables: Address,
    waves: Address,
    saves: Address,
}

impl<D: Device> CudaBatch<D> {
    /// The arrays of a batch with copies of its first row behind its own, up to `size`: each a sequence of its own, of which
    /// nothing is kept; the last sequences have no rows. They lie at the same places for every batch of the size. None if the
    /// running states of a batch take more than one launch.
    pub(super) fn words(batch: &Batch, size: Size) -> Option<(Vec<u32>, Places)> {
        let (own, sequences) = (batch.rows(), &batch.sequences);
        let (copies, width) = (size.rows - own, size.table_width());
        let row = |of: &[u32], copy| {
            of.iter().copied().chain(std::iter::repeat_n(copy, copies)).collect::<Vec<u32>>()
        };
        let none = size.rows - sequences.len() - copies;
        let mut words = Lists::default();
        // First, as it has numbers of 64 bits in it.
        let draws = (0..size.rows).flat_map(|row| words_of(batch.draws.get(row).unwrap_or(&Draw::BEST)));
        let draws = words.push(draws);
        let token_ids = words.push(row(&batch.tokens, batch.tokens[0]));
        let row_positions = words.push(row(&batch.positions, batch.positions[0]));
        let slots = words.push(row(&batch.slots, NO_SLOT));
        let ends = sequences.iter().map(|of| of.rows.end).chain(own + 1..=size.rows);
        let ends = ends.chain(std::iter::repeat_n(size.rows, none)).map(|end| end as u32);
        let first_rows = words.push(std::iter::once(0).chain(ends));
        let copied = std::iter::repeat_n(batch.positions[0] as usize + 1, copies);
        let contexts = sequences.iter().map(|of| of.context).chain(copied);
        let contexts = contexts.chain(std::iter::repeat_n(0, none)).map(|tokens| tokens as u32);
        let contexts = words.push(contexts);
        let copied = std::iter::repeat_n(&sequences[0], copies);
        let tables = sequences.iter().chain(copied).flat_map(|of| table(batch, of, width));
        let tables = words.push(tables.chain(std::iter::repeat_n(0, none * width)));
        let [mut waves_at, mut saves] = [0; 2];
        if size.states {
            let mut of_states = Lists::default();
            let waves = waves(batch, &mut of_states);
            if waves.len() > 1 || waves.iter().any(|wave| wave.sequences as usize != sequences.len()) {
                return None;
            }
            // Copies begin from nothing and leave nothing.
            let empty = |rows: Range<usize>| {
                let of =
                    |row| Sequence { first_row: row as u32, rows: 1, slot: NO_SLOT, ..Sequence::default() };
                rows.map(of)
            };
            let none = std::iter::repeat_n(Sequence { slot: NO_SLOT, ..Sequence::default() }, none);
            waves_at = words.push(of_states.0);
            words.push(empty(own..size.rows).chain(none).flat_map(fields));
            let own = batch.saves.iter().flat_map(|save| [save.tokens as u32, save.snapshot]);
            saves = words.push(own.chain(std::iter::repeat_n(0, 2 * (size.rows - batch.saves.len()))));
        }
        let places = Places {
            draws,
            token_ids,
            row_positions,
            slots,
            first_rows,
            contexts,
            tables,
            waves: waves_at,
            saves,
        };
        Some((words.0, places))
    }

    /// A batch of fixed size, whose arrays are written to `inputs` before every replay.
    pub(super) fn fixed(size: Size, places: Places, inputs: &Buffer<D>) -> Self {
        let base = inputs.address();
        let sequences = size.rows as u32;
        let run = Run {
            rows: 0..size.rows,
            sequences,
            most_rows: size.of_sequence as u32,
            decodes: true,
            first_rows: base + places.first_rows,
            contexts: base + places.contexts,
            tables: base + places.tables,
            table_width: size.table_width() as u32,
            chunks: size.chunks as u32,
        };
        let wave = size.states.then_some(Wave { first: base + places.waves, sequences });
        CudaBatch {
            rows: size.rows,
            positions: size.chunks * CHUNK as usize,
            token_ids: base + places.token_ids,
            row_positions: base + places.row_positions,
            slots: base + places.slots,
            runs: vec![run],
            waves: wave.into_iter().collect(),
            saves: base + places.saves,
            draws: base + places.draws,
            _memory: inputs.lent(),
        }
    }
}

/// The words that the kernel reads as a rule.
fn words_of(draw: &Draw) -> [u32; 8] {
    const _: () = assert!(size_of::<Rule>() == 32);
    let Draw { temperature, top_p, min_p, top_k, seed, index } = *draw;
    let halves = |x: u64| [x as u32, (x >> 32) as u32];
    let [[seed, high_seed], [index, high_index]] = [seed, index].map(halves);
    let [temperature, top_p, min_p] = [temperature, top_p, min_p].map(f32::to_bits);
    [temperature, top_p, min_p, top_k, seed, high_seed, index, high_index]
}

/// Rules as the kernel reads them.
pub(super) fn rules(draws: &[Draw]) -> Vec<u32> {
    draws.iter().flat_map(words_of).collect()
}
