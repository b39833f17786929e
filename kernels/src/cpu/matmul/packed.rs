//! Products with weights that are unpacked as they are met, a few columns at a time.

use super::super::isa::Isa;
use super::super::mxfp4::{self, Mxfp4View};
use super::super::scratch;
use super::split::{Out, Part};
use super::{Job, dense};

/// Columns that are unpacked together: a panel of the dense product.
const COLUMNS: usize = 8;

/// Computes one part of a job whose lengths are checked.
pub(super) fn part(isa: Isa, part: &Part, job: &Job<'_>, w: &Mxfp4View<'_>) {
    scratch::with(COLUMNS * w.k, |unpacked| {
        for first in part.columns.clone().step_by(COLUMNS) {
            let columns = COLUMNS.min(part.columns.end - first);
            let unpacked = &mut unpacked[..columns * w.k];
            mxfp4::unpack(isa, w, first, unpacked);
            // The place lies within the part.
            let out = Out(part.out.0.wrapping_add(first - part.columns.start));
            let few = Part { job: part.job, rows: part.rows.clone(), columns: 0..columns, out };
            dense::part(isa, &few, job, unpacked);
        }
    });
}
