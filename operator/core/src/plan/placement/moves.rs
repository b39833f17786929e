//! What can be done to a layer in one step.

/// An expert gets a rank, loses one, or goes from one to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    pub expert: usize,
    pub from: Option<usize>,
    pub to: Option<usize>,
}

/// One or two changes of different experts at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Move {
    pub first: Change,
    pub second: Option<Change>,
}

impl Move {
    pub(super) fn shift(expert: usize, from: usize, to: usize) -> Move {
        Move { first: Change { expert, from: Some(from), to: Some(to) }, second: None }
    }

    /// A further copy.
    pub(super) fn copy(expert: usize, to: usize) -> Move {
        Move { first: Change { expert, from: None, to: Some(to) }, second: None }
    }

    pub(super) fn drop(expert: usize, from: usize) -> Move {
        Move { first: Change { expert, from: Some(from), to: None }, second: None }
    }

    pub(super) fn swap(one: usize, at: usize, other: usize, there: usize) -> Move {
        Move::shift(one, at, there).and(Change { expert: other, from: Some(there), to: Some(at) })
    }

    /// The same, and the copy of `expert` on `rank` makes room for it.
    pub(super) fn instead_of(self, expert: usize, rank: usize) -> Move {
        self.and(Change { expert, from: Some(rank), to: None })
    }

    fn and(self, second: Change) -> Move {
        Move { second: Some(second), ..self }
    }

    pub(super) fn changes(&self) -> impl Iterator<Item = Change> {
        std::iter::once(self.first).chain(self.second)
    }
}
