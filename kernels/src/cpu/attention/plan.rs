//! How attention is cut into work. Cuts never change a result: chunks of keys are the same either way.

use std::ops::Range;

use super::unit::{self, PAIRS};
use super::{CHUNK, Layout, Sequence, Shape};

/// Units per thread below which they are cut into chunks of keys.
const UNITS_PER_THREAD: usize = 4;

/// Some (row, query head) pairs of one sequence that read one KV head.
pub(super) struct Unit {
    pub(super) sequence: usize,
    pub(super) kv_head: usize,
    /// Pair p is row `p / group` and the p % group-th query head of the KV head.
    pub(super) first_pair: usize,
    pub(super) pairs: usize,
    /// Chunks of keys that some row sees.
    pub(super) chunks: Range<usize>,
    /// Index of the unit's first piece, if it is cut.
    pub(super) first_piece: usize,
}

/// One chunk of keys of one unit.
pub(super) struct Piece {
    pub(super) unit: usize,
    pub(super) chunk: usize,
}

/// A plan, and the memory for partial results of pieces.
#[derive(Default)]
pub(crate) struct Partials {
    pub(super) units: Vec<Unit>,
    /// Empty if units are not cut.
    pub(super) pieces: Vec<Piece>,
    pub(super) floats: Vec<f32>,
    pub(super) floats_per_piece: usize,
}

impl Partials {
    pub(super) fn plan(&mut self, sequences: &[Sequence<'_>], shape: &Shape, layout: Layout, threads: usize) {
        self.units.clear();
        self.pieces.clear();
        for (index, sequence) in sequences.iter().enumerate() {
            let pairs = sequence.rows.len() * shape.group();
            for first_pair in (0..pairs).step_by(PAIRS) {
                let pairs = PAIRS.min(pairs - first_pair);
                let first = unit::keys(sequence, shape, first_pair).start / CHUNK;
                let end = unit::keys(sequence, shape, first_pair + pairs - 1).end.div_ceil(CHUNK);
                for kv_head in 0..shape.kv_heads {
                    self.units.push(Unit {
                        sequence: index,
                        kv_head,
                        first_pair,
                        pairs,
                        chunks: first..end,
                        first_piece: 0,
                    });
                }
            }
        }
        if threads == 1 || self.units.len() >= threads * UNITS_PER_THREAD {
            return;
        }
        for (index, unit) in self.units.iter_mut().enumerate() {
            unit.first_piece = self.pieces.len();
            self.pieces.extend(unit.chunks.clone().map(|chunk| Piece { unit: index, chunk }));
        }
        let most_pairs = self.units.iter().map(|unit| unit.pairs).max().unwrap_or(0);
        self.floats_per_piece = unit::partial_floats(most_pairs, layout.value_dim(shape));
        let floats = self.pieces.len() * self.floats_per_piece;
        self.floats.resize(self.floats.len().max(floats), 0.0);
    }
}
