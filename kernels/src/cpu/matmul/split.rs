//! How a group of products is cut into parts of about equal work. Cuts never change a result.

use std::ops::Range;

use super::Job;

/// Columns of a part are a multiple of this (a cache line of `out`), the last part's excepted.
const COLUMNS: usize = 16;
/// Parts per thread: enough that a thread that was held up is not waited for long.
const PARTS_PER_THREAD: usize = 8;
/// Multiply-adds below which a part is not worth handing out, some microseconds of work.
const MIN_COST: usize = 1 << 17;
/// Most rows of a part: as many as stay in the L2 cache, 1024 values each, while columns go over them.
const ROWS: usize = 96;
/// Reading a weight costs about as much as this many multiply-adds.
const READ_COST: usize = 4;

/// Some rows and columns of one job.
pub(crate) struct Part {
    /// Index of the job.
    pub(crate) job: usize,
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
    /// The job's `out` at the first row and column of the part.
    pub(crate) out: Out,
}

/// Where a part writes: its own rows and columns of its job's `out`, and nothing else.
#[derive(Clone, Copy)]
pub(crate) struct Out(pub(crate) *mut f32);

// SAFETY: parts of one plan write disjoint places, each by one thread.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

/// Cuts `jobs`, whose lengths are checked, into `parts`.
pub(super) fn plan(jobs: &mut [Job<'_>], threads: usize, parts: &mut Vec<Part>) {
    parts.clear();
    let cost = |job: &Job<'_>| job.w.n() * job.w.k() * if job.m == 0 { 0 } else { job.m + READ_COST };
    let total: usize = jobs.iter().map(cost).sum();
    let target = (total / (threads * PARTS_PER_THREAD)).max(MIN_COST);
    for (index, job) in jobs.iter_mut().enumerate() {
        let (m, n, k) = (job.m, job.w.n(), job.w.k());
        if m == 0 || n == 0 {
            continue;
        }
        let rows = m.div_ceil(m.div_ceil(ROWS));
        let columns = (target / (k.max(1) * (rows + READ_COST))).max(1).next_multiple_of(COLUMNS);
        let columns = n.div_ceil(n.div_ceil(columns)).next_multiple_of(COLUMNS);
        for column in (0..n).step_by(columns) {
            for row in (0..m).step_by(rows) {
                parts.push(Part {
                    job: index,
                    rows: row..m.min(row + rows),
                    columns: column..n.min(column + columns),
                    out: Out(job.out[row * n + column..].as_mut_ptr()),
                });
            }
        }
    }
}
