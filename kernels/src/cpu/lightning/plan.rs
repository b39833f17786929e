//! What a call of lightning attention computes, and which of it may go on at the same time.

use std::ops::Range;

use super::BLOCK;

/// Where a sequence's state comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is zero: the sequence begins.
    Zero,
    /// A snapshot, as of the position of the first row.
    Snapshot(usize),
    /// Its slot, where the rows before left it.
    Slot,
}

/// A snapshot to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Save {
    /// Tokens that it is to contain: a multiple of [`BLOCK`].
    pub tokens: usize,
    /// Which snapshot it is to be.
    pub snapshot: usize,
}

/// The rows of one sequence.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    pub(super) rows: Range<usize>,
    /// Position of the first row.
    pub(super) position: usize,
    pub(super) slot: usize,
    pub(super) origin: Origin,
    /// Of the plan's.
    pub(super) saves: Range<usize>,
}

/// The sequences of a call, in the order in which they see each other's snapshots: one may begin from what another
/// before it saves in the same call, and may write over what another before it has begun from. They are cut into
/// waves, within which no such pair is.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    sequences: Vec<Sequence>,
    saves: Vec<Save>,
    /// Where each wave but the last ends.
    ends: Vec<usize>,
    /// `[slots]`: is the slot some sequence's?
    taken: Vec<bool>,
    /// `[snapshots]`: the waves that read and that wrote it last, counted from 1.
    touched: Vec<[usize; 2]>,
}

impl Plan {
    /// Adds the rows of a sequence whose first is at `position`. Its state is in `slot`, and comes from `origin`.
    ///
    /// # Panics
    /// If rows are out of order, the slot is another sequence's, or position, origin and saves do not fit together.
    pub fn push(
        &mut self,
        rows: Range<usize>,
        position: usize,
        slot: usize,
        origin: Origin,
        saves: impl Iterator<Item = Save>,
    ) {
        assert!(self.rows() <= rows.start && rows.start <= rows.end, "rows are in order and apart");
        let whole = position.is_multiple_of(BLOCK);
        match origin {
            Origin::Zero => assert_eq!(position, 0, "a state is zero before the first token"),
            Origin::Snapshot(_) => assert!(whole && position > 0, "a snapshot is as of the end of a block"),
            Origin::Slot => assert!(position > 0, "a state comes from rows before"),
        }
        let first_save = self.saves.len();
        self.saves.extend(saves);
        let mut end = position;
        for save in &self.saves[first_save..] {
            let known = save.tokens.is_multiple_of(BLOCK) && save.tokens <= position + rows.len();
            assert!(known && end < save.tokens, "saves are of blocks that these rows fill, in order");
            end = save.tokens;
        }
        if self.taken.len() <= slot {
            self.taken.resize(slot + 1, false);
        }
        assert!(!std::mem::replace(&mut self.taken[slot], true), "a slot is one sequence's");
        let sequence = Sequence { rows, position, slot, origin, saves: first_save..self.saves.len() };
        self.order(&sequence);
        self.sequences.push(sequence);
    }

    /// Begins a new wave where the last one has a sequence that `sequence` must not overtake.
    fn order(&mut self, sequence: &Sequence) {
        let read = match sequence.origin {
            Origin::Snapshot(snapshot) => Some(snapshot),
            Origin::Zero | Origin::Slot => None,
        };
        let written = self.saves[sequence.saves.clone()].iter().map(|save| save.snapshot);
        let most = written.clone().chain(read).max().map_or(0, |snapshot| snapshot + 1);
        if self.touched.len() < most {
            self.touched.resize(most, [0; 2]);
        }
        let wave = self.ends.len() + 1;
        let waits = read.is_some_and(|snapshot| self.touched[snapshot][1] == wave)
            || written.clone().any(|snapshot| self.touched[snapshot].contains(&wave));
        let wave = wave + usize::from(waits);
        if waits {
            self.ends.push(self.sequences.len());
        }
        if let Some(snapshot) = read {
            self.touched[snapshot][0] = wave;
        }
        for snapshot in written {
            self.touched[snapshot][1] = wave;
        }
    }

    pub(super) fn waves(&self) -> impl Iterator<Item = &[Sequence]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ends = self.ends.iter().copied().chain([self.sequences.len()]);
        starts.zip(ends).map(|(start, end)| &self.sequences[start..end])
    }

    pub(super) fn saves(&self) -> &[Save] {
        &self.saves
    }

    /// One more than the last row, slot and snapshot that are named.
    pub(super) fn rows(&self) -> usize {
        self.sequences.last().map_or(0, |sequence| sequence.rows.end)
    }

    pub(super) fn slots(&self) -> usize {
        self.taken.len()
    }

    pub(super) fn snapshots(&self) -> usize {
        self.touched.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(tokens: usize, snapshot: usize) -> Save {
        Save { tokens, snapshot }
    }

    /// How many sequences each wave has.
    fn waves(sequences: &[(usize, Origin, &[Save])]) -> Vec<usize> {
        let mut plan = Plan::default();
        for (slot, (position, origin, saves)) in sequences.iter().enumerate() {
            plan.push(slot * 32..slot * 32 + 32, *position, slot, *origin, saves.iter().copied());
        }
        plan.waves().map(<[Sequence]>::len).collect()
    }

    #[test]
    fn who_has_nothing_in_common_shares_a_wave() {
        let (zero, saved) = (Origin::Zero, Origin::Snapshot(2));
        assert_eq!(waves(&[]), [0]);
        assert_eq!(waves(&[(0, zero, &[save(16, 0)]), (40, Origin::Slot, &[]), (16, saved, &[])]), [3]);
        assert_eq!(waves(&[(16, saved, &[]), (16, saved, &[save(32, 1)])]), [2], "both may read it");
    }

    #[test]
    fn nobody_overtakes_who_saves_or_reads_the_same_snapshot() {
        let (zero, saved) = (Origin::Zero, Origin::Snapshot(0));
        let saves: &[Save] = &[save(16, 0)];
        assert_eq!(waves(&[(0, zero, saves), (16, saved, &[]), (16, saved, &[])]), [1, 2]);
        assert_eq!(waves(&[(16, saved, &[]), (0, zero, saves), (0, zero, saves)]), [1, 1, 1]);
        assert_eq!(waves(&[(16, saved, &[save(32, 0)]), (16, saved, &[])]), [1, 1]);
        assert_eq!(
            waves(&[(0, zero, &[save(16, 0), save(32, 0)])]),
            [1],
            "in one sequence the order is its own"
        );
    }

    #[test]
    #[should_panic(expected = "a slot is one sequence's")]
    fn two_sequences_do_not_share_a_slot() {
        let mut plan = Plan::default();
        plan.push(0..1, 0, 3, Origin::Zero, std::iter::empty());
        plan.push(1..2, 0, 3, Origin::Zero, std::iter::empty());
    }

    #[test]
    #[should_panic(expected = "blocks that these rows fill")]
    fn what_is_not_computed_is_not_saved() {
        Plan::default().push(0..15, 0, 0, Origin::Zero, [save(16, 0)].into_iter());
    }
}
