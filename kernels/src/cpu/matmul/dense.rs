//! Products with weights that widen to f32.
//!
//! Sixteen lanes run along k, so rows of `x` and `w` are read as they lie. A tile of up to 3 rows × 8 columns keeps
//! one register of sums per output: 24 multiply-adds for 11 loads.

use super::super::isa::Isa;
use super::super::lanes::{Element, Kernel, LANES, Lanes, on, panels_ahead};
use super::super::scratch;
use super::tile::{Next, PANEL, STRIP, Walk, tile, tile8};
use super::{Job, Part};

/// Columns that share pieces of rows in the cache.
const GROUP: usize = 64;
/// A panel's layout: sixteens of the eight columns side by side.
const PANEL_WALK: Walk = Walk { column: LANES, step: PANEL * LANES };
/// Values along k after which a widened panel (32 KiB) leaves the L1 cache.
const DEPTH: usize = 1024;

/// Computes one part of a job whose lengths are checked.
pub(super) fn part<W: Element>(isa: Isa, part: &Part, job: &Job<'_>, w: &[W]) {
    let (n, k) = (job.w.n(), job.w.k());
    let rows = part.rows.len();
    // Few rows: memory is the bound, weights are widened in registers. More: widened once per panel.
    let widened = rows > STRIP;
    let depth = k.div_ceil(k.div_ceil(DEPTH).max(1)).next_multiple_of(LANES);
    let panel = if widened { PANEL * depth } else { 0 };
    let sums = if widened && depth < k { GROUP * rows * LANES } else { 0 };
    scratch::with(panel + sums, |scratch| {
        let (panel, sums) = scratch.split_at_mut(panel);
        let tiles = Tiles {
            out: part.out.0,
            out_stride: n,
            x: job.x[part.rows.start * k..].as_ptr(),
            rows,
            w: w[part.columns.start * k..].as_ptr(),
            columns: part.columns.len(),
            k,
            depth,
            panel: panel.as_mut_ptr(),
            sums: sums.as_mut_ptr(),
            widened,
        };
        // SAFETY: pools exist only for instruction sets that the CPU has. The part lies within the job, so all rows
        // and columns are within `x`, `w` and `out`, and no other thread writes this part of `out`.
        unsafe { on(isa, tiles) }
    });
}

struct Tiles<W> {
    out: *mut f32,
    out_stride: usize,
    /// `[rows, k]`
    x: *const f32,
    rows: usize,
    /// `[columns, k]`
    w: *const W,
    columns: usize,
    k: usize,
    /// Values along k per panel, a multiple of 16.
    depth: usize,
    /// Widened weights `[depth / 16, 8, 16]`.
    panel: *mut f32,
    /// Sums between pieces along k: `[GROUP / 8, rows, 8, 16]`.
    sums: *mut f32,
    widened: bool,
}

impl<W: Element> Kernel for Tiles<W> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: the caller's.
        unsafe {
            let whole = self.columns - self.columns % PANEL;
            if self.widened {
                for column in (0..whole).step_by(GROUP) {
                    self.widened_group::<L>(column, whole.min(column + GROUP));
                }
            } else {
                for column in (0..whole).step_by(PANEL) {
                    match self.rows {
                        1 => self.streamed::<L, 1>(column),
                        2 => self.streamed::<L, 2>(column),
                        _ => self.streamed::<L, 3>(column),
                    }
                }
            }
            for column in whole..self.columns {
                for row in 0..self.rows {
                    let (x, w) = (self.x.add(row * self.k), self.w.add(column * self.k));
                    let next = Next { from: w, column: 0 };
                    let [[lanes]] =
                        tile::<L, W, W, 1, 1, 0>(x, self.k, w, self.walk(), next, self.k, [[L::splat(0.0)]]);
                    *self.out.add(row * self.out_stride + column) = lanes.sum();
                }
            }
        }
    }
}

impl<W: Element> Tiles<W> {
    /// The layout of `w`.
    fn walk(&self) -> Walk {
        Walk { column: self.k, step: LANES }
    }

    /// All rows (`M` of them) times eight columns, weights read once from where they lie.
    #[inline(always)]
    unsafe fn streamed<L: Lanes, const M: usize>(&self, column: usize) {
        // SAFETY: the caller's.
        unsafe {
            let w = self.w.add(column * self.k);
            let zeros = [[L::splat(0.0); PANEL]; M];
            let panel = PANEL * self.k;
            let ahead = panels_ahead(panel * size_of::<W>()) * panel;
            let next = Next { from: w.wrapping_add(ahead), column: self.k };
            let sums = tile8::<L, W, W, M, PANEL>(self.x, self.k, w, self.walk(), next, self.k, zeros);
            self.finish(sums, 0, column);
        }
    }

    /// All rows times columns `first..end`, weights widened panel by panel, piece by piece along k: a piece of all
    /// rows stays in the L2 cache while the columns go over it.
    #[inline(always)]
    unsafe fn widened_group<L: Lanes>(&self, first: usize, end: usize) {
        // SAFETY: the caller's.
        unsafe {
            for start in (0..self.k).step_by(self.depth) {
                let depth = self.depth.min(self.k - start);
                for column in (first..end).step_by(PANEL) {
                    let w = self.w.add(column * self.k + start);
                    for c in 0..PANEL {
                        widen::<L, W>(w.add(c * self.k), depth, self.panel.add(c * LANES));
                    }
                    let next = w.wrapping_add(PANEL * self.k);
                    let saved = self.sums.wrapping_add((column - first) * self.rows * LANES);
                    let strips = self.rows.div_ceil(STRIP);
                    for strip in 0..strips {
                        // The next panel's eight columns, one a strip or, with few strips, four.
                        let asked = if strips < PANEL { 4 } else { 1 };
                        let asked = if strip * asked < PANEL { asked } else { 0 };
                        let place = Strip { row: strip * STRIP, column, start, depth, saved };
                        let next = Next { from: next.wrapping_add(strip * asked * self.k), column: self.k };
                        match asked {
                            4 => self.strip::<L, 4>(place, next),
                            1 => self.strip::<L, 1>(place, next),
                            _ => self.strip::<L, 0>(place, next),
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn strip<L: Lanes, const ASKED: usize>(&self, strip: Strip, next: Next<W>) {
        // SAFETY: the caller's.
        unsafe {
            match self.rows - strip.row {
                1 => self.strip_of::<L, 1, ASKED>(strip, next),
                2 => self.strip_of::<L, 2, ASKED>(strip, next),
                _ => self.strip_of::<L, 3, ASKED>(strip, next),
            }
        }
    }

    /// `M` rows times the panel, while `ASKED` columns of the next are asked for.
    #[inline(always)]
    unsafe fn strip_of<L: Lanes, const M: usize, const ASKED: usize>(&self, strip: Strip, next: Next<W>) {
        let Strip { row, column, start, depth, saved } = strip;
        // SAFETY: the caller's.
        unsafe {
            let saved = saved.wrapping_add(row * PANEL * LANES);
            let at = |r: usize, c: usize| saved.add((r * PANEL + c) * LANES);
            let mut sums = [[L::splat(0.0); PANEL]; M];
            if start > 0 {
                for r in 0..M {
                    for c in 0..PANEL {
                        sums[r][c] = L::load(at(r, c));
                    }
                }
            }
            let x = self.x.add(row * self.k + start);
            let sums = tile8::<L, f32, W, M, ASKED>(x, self.k, self.panel, PANEL_WALK, next, depth, sums);
            if start + depth == self.k {
                return self.finish(sums, row, column);
            }
            for r in 0..M {
                for c in 0..PANEL {
                    sums[r][c].store(at(r, c));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn finish<L: Lanes, const M: usize>(&self, sums: [[L; PANEL]; M], row: usize, column: usize) {
        for (r, sums) in sums.into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { L::store_sums8(sums, self.out.add((row + r) * self.out_stride + column)) }
        }
    }
}

/// A strip of rows of a widened panel.
#[derive(Clone, Copy)]
struct Strip {
    row: usize,
    column: usize,
    start: usize,
    depth: usize,
    /// Sums between pieces along k, `[rows, 8, 16]`.
    saved: *mut f32,
}

#[inline(always)]
unsafe fn widen<L: Lanes, W: Element>(w: *const W, k: usize, to: *mut f32) {
    // SAFETY: the caller's; `to` has room for a multiple of 16.
    unsafe {
        let whole = k - k % LANES;
        let mut i = 0;
        while i < whole {
            W::load::<L>(w.add(i)).store(to.add(i * PANEL));
            i += LANES;
        }
        if whole < k {
            W::load_part::<L>(w.add(whole), k - whole).store(to.add(whole * PANEL));
        }
    }
}
