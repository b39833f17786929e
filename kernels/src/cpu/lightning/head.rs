//! One head of one sequence, block after block.

use std::ops::Range;

use super::super::disjoint::Disjoint;
use super::super::isa::Isa;
use super::super::lanes::on;
use super::fold::Fold;
use super::plan::Sequence;
use super::rows::Rows;
use super::{BLOCK, Decays, Origin, Save, Shape};

/// The arguments of one call, checked.
pub(super) struct Call<'a> {
    /// `[rows, heads, 3, head_dim]`
    pub(super) qkv: &'a [f32],
    /// `[rows, heads]` of `head_dim` values.
    pub(super) out: &'a Disjoint<'a, f32>,
    /// `[slots, heads]` of S.
    pub(super) sums: &'a Disjoint<'a, f32>,
    /// `[slots, heads]` of keys and values.
    pub(super) tails: &'a Disjoint<'a, f32>,
    /// `[snapshots, heads]` of S.
    pub(super) snapshots: &'a Disjoint<'a, f32>,
    pub(super) saves: &'a [Save],
    pub(super) shape: Shape,
    pub(super) decays: &'a Decays,
    pub(super) isa: Isa,
}

impl Call<'_> {
    /// All rows of a sequence for one head.
    ///
    /// # Safety
    /// Meanwhile nobody else works on that head of the sequence's rows and slot, writes the snapshot that it begins
    /// from, or touches those that it saves.
    pub(super) unsafe fn head(&self, sequence: &Sequence, head: usize) {
        let Sequence { rows, position: first, slot, origin, saves } = sequence;
        let heads = self.shape.heads;
        // SAFETY: the caller's.
        let (sums, tail) =
            unsafe { (self.sums.row(slot * heads + head), self.tails.row(slot * heads + head)) };
        match origin {
            Origin::Zero => sums.fill(0.0),
            Origin::Snapshot(from) => {
                // SAFETY: the caller's.
                let snapshot = unsafe { self.snapshots.read(from * heads + head) };
                sums.copy_from_slice(snapshot);
            }
            Origin::Slot => {}
        }
        let mut saves = self.saves[saves.clone()].iter().peekable();
        let (mut row, mut position) = (rows.start, *first);
        while row < rows.end {
            let offset = position % BLOCK;
            // What comes from elsewhere has no tail.
            if offset == 0 && (position > *first || *origin == Origin::Slot) {
                let sums = sums.as_mut_ptr();
                // SAFETY: the slot's S and tail, which is full.
                unsafe { self.fold(sums, sums, tail, head) };
            }
            let count = (BLOCK - offset).min(rows.end - row);
            self.store(tail, row..row + count, offset, head);
            self.rows(sums, tail, row..row + count, offset, head);
            (row, position) = (row + count, position + count);
            if let Some(save) = saves.next_if(|save| save.tokens == position) {
                // SAFETY: the caller's; the tail is full.
                unsafe {
                    let to = self.snapshots.row(save.snapshot * heads + head);
                    self.fold(sums.as_ptr(), to.as_mut_ptr(), tail, head);
                }
            }
        }
    }

    /// Part 0, 1 or 2 of a row: q, k or v.
    fn part(&self, row: usize, head: usize, part: usize) -> &[f32] {
        let Shape { heads, head_dim } = self.shape;
        &self.qkv[((row * heads + head) * 3 + part) * head_dim..][..head_dim]
    }

    /// Puts the rows' k and v into the tail, from `offset` on.
    fn store(&self, tail: &mut [f32], rows: Range<usize>, offset: usize, head: usize) {
        let (keys, values) = tail.split_at_mut(BLOCK * self.shape.head_dim);
        let values = values.chunks_exact_mut(self.shape.head_dim).skip(offset);
        for ((at, row), value) in rows.enumerate().zip(values) {
            let places = keys[offset + at..].iter_mut().step_by(BLOCK);
            places.zip(self.part(row, head, 1)).for_each(|(place, x)| *place = *x);
            value.copy_from_slice(self.part(row, head, 2));
        }
    }

    fn rows(&self, sums: &[f32], tail: &[f32], rows: Range<usize>, offset: usize, head: usize) {
        let Shape { heads, head_dim } = self.shape;
        let mut outs = [std::ptr::null_mut(); BLOCK];
        let mut q = [self.qkv.as_ptr(); BLOCK];
        for (at, row) in rows.clone().enumerate() {
            // SAFETY: the caller's of `head`: this head of these rows is worked on by nobody else.
            outs[at] = unsafe { self.out.row(row * heads + head) }.as_mut_ptr();
            q[at] = self.part(row, head, 0).as_ptr();
        }
        let (keys, values) = tail.split_at(BLOCK * head_dim);
        let block = Rows {
            q: &q[..rows.len()],
            outs: &outs[..rows.len()],
            offset,
            sums: sums.as_ptr(),
            keys: keys.as_ptr(),
            values: values.as_ptr(),
            decay: self.decays.of(head),
            head_dim,
        };
        // SAFETY: pools exist only for instruction sets that the CPU has; the pointers are to whole rows, tails and S.
        unsafe { on(self.isa, block) }
    }

    /// Writes `sums` with a full tail folded in to `to`, which may be the same.
    ///
    /// # Safety
    /// Both are valid for one S.
    unsafe fn fold(&self, sums: *const f32, to: *mut f32, tail: &[f32], head: usize) {
        let head_dim = self.shape.head_dim;
        let (keys, values) = tail.split_at(BLOCK * head_dim);
        let decay = self.decays.of(head);
        let fold = Fold { sums, to, keys: keys.as_ptr(), values: values.as_ptr(), decay, head_dim };
        // SAFETY: pools exist only for instruction sets that the CPU has; the rest is the caller's.
        unsafe { on(self.isa, fold) }
    }
}
