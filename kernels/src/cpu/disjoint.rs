//! A slice that the tasks of a run write in rows, each row by one task.

use std::marker::PhantomData;

use super::pool::Pool;

/// Rows of `stride` values of a slice, handed out one by one.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    length: usize,
    stride: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: `row` makes its caller promise that no two threads hold one row.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// The last row may be shorter.
    pub(crate) fn new(slice: &'a mut [T], stride: usize) -> Disjoint<'a, T> {
        Disjoint { start: slice.as_mut_ptr(), length: slice.len(), stride, slice: PhantomData }
    }

    /// Row `index`, empty past the end.
    ///
    /// # Safety
    /// Nobody else holds that row.
    #[allow(clippy::mut_from_ref)] // what `unsafe` is about
    pub(crate) unsafe fn row(&self, index: usize) -> &mut [T] {
        let from = self.length.min(index * self.stride);
        let length = self.stride.min(self.length - from);
        // SAFETY: within the slice, and nobody else holds it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), length) }
    }

    /// Row `index`, empty past the end, to be read.
    ///
    /// # Safety
    /// Nobody has that row from [`row`](Disjoint::row).
    pub(crate) unsafe fn read(&self, index: usize) -> &[T] {
        let from = self.length.min(index * self.stride);
        let length = self.stride.min(self.length - from);
        // SAFETY: within the slice, and nobody writes it.
        unsafe { std::slice::from_raw_parts(self.start.add(from), length) }
    }
}

impl Pool {
    /// Calls `body(index, chunk)` for every chunk of `length` values (the last may be shorter), on all threads.
    pub(crate) fn chunks<T: Send>(
        &self,
        slice: &mut [T],
        length: usize,
        body: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let length = length.max(1);
        let count = slice.len().div_ceil(length);
        let chunks = Disjoint::new(slice, length);
        // SAFETY: every task has its own chunk.
        self.tasks(count, |index| body(index, unsafe { chunks.row(index) }));
    }
}

/// Values of a chunk of whole rows of `dim`, large enough to be worth handing out.
pub(crate) fn chunk_of_rows(dim: usize) -> usize {
    const VALUES: usize = 1 << 14;
    dim * (VALUES / dim.max(1)).max(1)
}
