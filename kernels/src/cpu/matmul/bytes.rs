//! Products with int8 weights: activations are quantized first, then groups of 64 are multiplied in integers.

use std::ops::Range;

use super::super::isa::Isa;
use super::super::lanes::{Kernel, LANES, Lanes, on_bytes, panels_ahead, prefetch};
use super::super::pool::Pool;
use super::super::quant::{self, GROUP, Int8View};
use super::super::scratch;
use super::{Job, Matrix, Part};

/// Columns of a tile.
const PANEL: usize = 8;
/// Rows of a tile.
const STRIP: usize = 2;
/// Rows that are quantized at a time.
const ROWS: usize = 16;
/// Activations below which quantizing them is not worth waking the other threads.
const MIN_SHARED: usize = 1 << 15;

/// The quantized activations of a group of jobs.
#[derive(Default)]
pub(crate) struct QuantizedRows {
    /// Rows padded with zeros to whole groups.
    values: Vec<i8>,
    scales: Vec<f32>,
    blocks: Vec<Block>,
    /// Per job: its rows, in groups from the start.
    jobs: Vec<usize>,
}

/// Some rows of one job.
struct Block {
    job: usize,
    rows: Range<usize>,
    /// Groups before these rows.
    groups: usize,
}

impl QuantizedRows {
    /// Quantizes the rows of every job with int8 weights; jobs on the same rows share them.
    pub(super) fn quantize(&mut self, pool: &Pool, jobs: &[Job<'_>]) {
        self.blocks.clear();
        self.jobs.clear();
        let mut groups = 0;
        for (index, job) in jobs.iter().enumerate() {
            let same = |other: &Job<'_>| {
                matches!(other.w, Matrix::Int8(_)) && std::ptr::eq(job.x, other.x) && job.m == other.m
            };
            if let Some(earlier) = jobs[..index].iter().rposition(same) {
                self.jobs.push(self.jobs[earlier]);
                continue;
            }
            self.jobs.push(groups);
            if let Matrix::Int8(w) = job.w {
                let per_row = w.k.div_ceil(GROUP);
                for row in (0..job.m).step_by(ROWS) {
                    let rows = row..job.m.min(row + ROWS);
                    self.blocks.push(Block { job: index, rows, groups: groups + row * per_row });
                }
                groups += job.m * per_row;
            }
        }
        if groups == 0 {
            return;
        }
        self.values.resize(self.values.len().max(groups * GROUP), 0);
        self.scales.resize(self.scales.len().max(groups), 0.0);
        let places = Places(self.values.as_mut_ptr(), self.scales.as_mut_ptr());
        let isa = pool.isa();
        let quantize = |block: &Block| {
            let job = &jobs[block.job];
            let k = job.w.k();
            let per_row = k.div_ceil(GROUP);
            for row in block.rows.clone() {
                let group = block.groups + (row - block.rows.start) * per_row;
                // SAFETY: every row has its own groups, within the lengths that were set above.
                unsafe {
                    quant::row(isa, &job.x[row * k..][..k], places.values(group), places.scales(group), true)
                };
            }
        };
        if groups * GROUP < MIN_SHARED {
            self.blocks.iter().for_each(quantize);
        } else {
            pool.tasks(self.blocks.len(), |block| quantize(&self.blocks[block]));
        }
    }
}

/// Where quantized rows go; every row has a place of its own.
struct Places(*mut i8, *mut f32);

// SAFETY: threads write disjoint places.
unsafe impl Sync for Places {}

impl Places {
    unsafe fn values(&self, group: usize) -> *mut i8 {
        // SAFETY: the caller's.
        unsafe { self.0.add(group * GROUP) }
    }
    unsafe fn scales(&self, group: usize) -> *mut f32 {
        // SAFETY: the caller's.
        unsafe { self.1.add(group) }
    }
}

/// Computes one part of a job whose lengths are checked and whose rows are quantized.
pub(super) fn part(isa: Isa, part: &Part, rows: &QuantizedRows, w: &Int8View<'_>) {
    let groups = w.k.div_ceil(GROUP);
    let first = rows.jobs[part.job] + part.rows.start * groups;
    scratch::with((part.rows.len().div_ceil(STRIP) + 2) * groups * LANES, |scratch| {
        let (w_wide, rest) = scratch.split_at_mut(groups * LANES);
        let (scales, x_wide) = rest.split_at_mut(groups * LANES);
        let tiles = Tiles {
            out: part.out.0,
            out_stride: w.n,
            x: rows.values[first * GROUP..].as_ptr(),
            x_scales: &rows.scales[first..][..part.rows.len() * groups],
            rows: part.rows.len(),
            w: w.values[part.columns.start * w.k..].as_ptr(),
            w_scales: &w.scales[part.columns.start * groups..part.columns.end * groups],
            columns: part.columns.len(),
            k: w.k,
            groups,
            w_wide,
            x_wide,
            scales,
        };
        // SAFETY: pools exist only for instruction sets that the CPU has. The part lies within the job, so all rows
        // and columns are within the slices, and no other thread writes this part of `out`.
        unsafe { on_bytes(isa, tiles) }
    });
}

/// Tiles are two rows by eight columns: sixteen products of scales fill one register.
struct Tiles<'a> {
    out: *mut f32,
    out_stride: usize,
    /// `[rows, groups, 64]`
    x: *const i8,
    /// `[rows, groups]`
    x_scales: &'a [f32],
    rows: usize,
    /// `[columns, k]`
    w: *const i8,
    /// `[columns, groups]`
    w_scales: &'a [f32],
    columns: usize,
    k: usize,
    groups: usize,
    /// Scales of a panel, `[groups, 2 × the same, 8 columns]`.
    w_wide: &'a mut [f32],
    /// Scales of rows, `[strips, groups, 2 rows, 8 × the same]`.
    x_wide: &'a mut [f32],
    /// Their products, `[groups, 2 rows, 8 columns]`.
    scales: &'a mut [f32],
}

impl Kernel for Tiles<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(mut self) {
        // SAFETY: the caller's.
        unsafe {
            self.spread_row_scales();
            for column in (0..self.columns).step_by(PANEL) {
                let columns = PANEL.min(self.columns - column);
                self.spread_column_scales(column, columns);
                for strip in 0..self.rows.div_ceil(STRIP) {
                    let row = strip * STRIP;
                    self.multiply_scales::<L>(strip);
                    match (self.rows - row, columns, row) {
                        // The first strip also asks for the next panel, so that memory is never idle.
                        (1, PANEL, 0) => self.panel::<L, 1, true>(row, column),
                        (1, PANEL, _) => self.panel::<L, 1, false>(row, column),
                        (_, PANEL, 0) => self.panel::<L, 2, true>(row, column),
                        (_, PANEL, _) => self.panel::<L, 2, false>(row, column),
                        (1, ..) => self.rest::<L, 1>(row, column, columns),
                        _ => self.rest::<L, 2>(row, column, columns),
                    }
                }
            }
        }
    }
}

impl Tiles<'_> {
    fn spread_row_scales(&mut self) {
        for (row, scales) in self.x_scales.chunks_exact(self.groups).enumerate() {
            let strip = &mut self.x_wide[row / STRIP * self.groups * LANES..];
            for (scale, wide) in scales.iter().zip(strip.chunks_exact_mut(LANES)) {
                wide[row % STRIP * PANEL..][..PANEL].fill(*scale);
            }
        }
    }

    #[inline(always)]
    fn spread_column_scales(&mut self, first: usize, columns: usize) {
        let scales = &self.w_scales[first * self.groups..];
        for c in 0..columns {
            for g in 0..self.groups {
                let scale = scales[c * self.groups + g];
                self.w_wide[g * LANES + c] = scale;
                self.w_wide[g * LANES + PANEL + c] = scale;
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply_scales<L: Lanes>(&mut self, strip: usize) {
        let rows = &self.x_wide[strip * self.groups * LANES..];
        for g in 0..self.groups {
            // SAFETY: all three hold sixteen values per group.
            unsafe {
                let columns = L::load(self.w_wide.as_ptr().add(g * LANES));
                let product = columns.mul(L::load(rows.as_ptr().add(g * LANES)));
                product.store(self.scales.as_mut_ptr().add(g * LANES));
            }
        }
    }

    /// Eight columns, in pieces that fit the registers.
    #[inline(always)]
    unsafe fn panel<L: Lanes, const M: usize, const ASK: bool>(&self, row: usize, column: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [[L::splat(0.0); PANEL]; M];
            if L::MANY_REGISTERS {
                sums = self.tile::<L, M, PANEL, ASK>(row, column, 0);
            } else {
                for c in (0..PANEL).step_by(2) {
                    let pair = self.tile::<L, M, 2, ASK>(row, column, c);
                    for r in 0..M {
                        [sums[r][c], sums[r][c + 1]] = pair[r];
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                L::store_sums8(sums, self.out.add((row + r) * self.out_stride + column));
            }
        }
    }

    /// The last columns, fewer than eight, one by one.
    #[inline(always)]
    unsafe fn rest<L: Lanes, const M: usize>(&self, row: usize, column: usize, columns: usize) {
        // SAFETY: the caller's.
        unsafe {
            for c in 0..columns {
                for (r, [sum]) in self.tile::<L, M, 1, false>(row, column, c).into_iter().enumerate() {
                    *self.out.add((row + r) * self.out_stride + column + c) = sum.sum();
                }
            }
        }
    }

    /// `M` rows times `N` columns of the panel at `column`, from its column `first` on.
    #[inline(always)]
    unsafe fn tile<L: Lanes, const M: usize, const N: usize, const ASK: bool>(
        &self,
        row: usize,
        column: usize,
        first: usize,
    ) -> [[L; N]; M] {
        // SAFETY: the caller's; what is asked for need not exist.
        unsafe {
            let x = self.x.add(row * self.groups * GROUP);
            let w = self.w.add((column + first) * self.k);
            let ahead = panels_ahead(PANEL * self.k) * PANEL * self.k;
            let mut sums = [[L::splat(0.0); N]; M];
            for g in 0..self.groups {
                let length = GROUP.min(self.k - g * GROUP);
                let scales = self.scales.as_ptr().add(g * LANES + first);
                let mut xs = [L::bytes(x.add(g * GROUP)); M];
                for r in 1..M {
                    xs[r] = L::bytes(x.add((r * self.groups + g) * GROUP));
                }
                for c in 0..N {
                    let w = w.add(c * self.k + g * GROUP);
                    if ASK {
                        prefetch(w.wrapping_add(ahead));
                    }
                    for r in 0..M {
                        let products = if length == GROUP {
                            L::dot_i8(w, xs[r])
                        } else {
                            L::dot_i8_part(w, length, xs[r])
                        };
                        sums[r][c] = products.mul_add(L::splat(*scales.add(r * PANEL + c)), sums[r][c]);
                    }
                }
            }
            sums
        }
    }
}
