//! From logits to probabilities and choices.

use super::disjoint::chunk_of_rows;
use super::isa::Isa;
use super::lanes::{self, Kernel, LANES, Lanes, on, tree_sum};
use super::pool::Pool;

/// The specification of a row's softmax: e^(x - max) over its tree sum.
pub fn softmax_reference(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; LANES];
    for (i, x) in row.iter_mut().enumerate() {
        *x = lanes::exp(*x - max);
        sums[i % LANES] += *x;
    }
    let sum = tree_sum(sums);
    row.iter_mut().for_each(|x| *x /= sum);
}

/// Softmax of each row of `dim` values, in place. Some value of a row must be finite.
///
/// # Panics
/// If `x` is not whole rows.
pub fn softmax_rows(pool: &Pool, x: &mut [f32], dim: usize) {
    assert!(dim > 0 && x.len().is_multiple_of(dim), "x is [rows, dim]");
    let isa = pool.isa();
    pool.chunks(x, chunk_of_rows(dim), |_, rows| {
        rows.chunks_exact_mut(dim).for_each(|row| softmax_row(isa, row));
    });
}

/// Softmax of one row in place.
pub(crate) fn softmax_row(isa: Isa, row: &mut [f32]) {
    let mut sum = 0.0;
    let max = max(isa, row);
    let exp_sum = ExpSum { row: row.as_mut_ptr(), length: row.len(), max, sum: &mut sum, keep: true };
    // SAFETY: pools exist only for instruction sets that the CPU has.
    unsafe { on(isa, exp_sum) };
    row.iter_mut().for_each(|x| *x /= sum);
}

/// Replaces logits by weights: e^((x - max) / temperature), where a weight is at least `least` and a number, or else 0. The
/// same bits on every instruction set and in `cu/sample.cu`.
pub fn weigh(isa: Isa, row: &mut [f32], max: f32, temperature: f32, least: f32) {
    let weigh = Weigh { row: row.as_mut_ptr(), length: row.len(), max, temperature };
    assert!(isa <= Isa::best(), "this CPU lacks {isa:?}");
    // SAFETY: the CPU has it; the row has as many values.
    unsafe { on(isa, weigh) };
    for weight in row {
        *weight = if *weight >= least { *weight } else { 0.0 };
    }
}

/// Replaces each value of a row by e^((x - max) / temperature).
struct Weigh {
    row: *mut f32,
    length: usize,
    max: f32,
    temperature: f32,
}

impl Kernel for Weigh {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let whole = self.length - self.length % LANES;
        // SAFETY: the caller's; `row` holds `length` values.
        unsafe {
            let (max, temperature) = (L::splat(self.max), L::splat(self.temperature));
            for i in (0..whole).step_by(LANES) {
                L::load(self.row.add(i)).sub(max).div(temperature).exp().store(self.row.add(i));
            }
            let (rest, left) = (self.row.add(whole), self.length - whole);
            if left > 0 {
                L::load_part(rest, left).sub(max).div(temperature).exp().store_part(rest, left);
            }
        }
    }
}

/// Natural-log probability of `token` under `softmax(row)`, and the `n` most likely (token, log probability), best
/// first, ties lowest id first.
///
/// # Panics
/// If `token` is not in the row.
pub fn log_softmax_top(pool: &Pool, row: &[f32], token: u32, n: usize) -> (f32, Vec<(u32, f32)>) {
    let max = max(pool.isa(), row);
    let mut sum = 0.0;
    let exp_sum = ExpSum { row: row.as_ptr().cast_mut(), length: row.len(), max, sum: &mut sum, keep: false };
    // SAFETY: pools exist only for instruction sets that the CPU has; without `keep` nothing is written.
    unsafe { on(pool.isa(), exp_sum) };
    let log_sum = f64::from(sum).ln() as f32;
    let log = |x: f32| x - max - log_sum;
    let top = top(pool.isa(), row, n);
    (log(row[token as usize]), top.into_iter().map(|(id, x)| (id, log(x))).collect())
}

/// Index of the largest value, ties lowest index; NaN is never chosen. 0 if there is nothing to choose.
pub fn argmax(pool: &Pool, row: &[f32]) -> u32 {
    let max = max(pool.isa(), row);
    row.iter().position(|x| *x == max).unwrap_or(0) as u32
}

/// The `n` largest values with their indices, best first, ties lowest index first; NaN is left out.
fn top(isa: Isa, row: &[f32], n: usize) -> Vec<(u32, f32)> {
    let mut top: Vec<(u32, f32)> = Vec::with_capacity(n.min(row.len()) + 1);
    if n == 0 {
        return top;
    }
    // Most stretches hold nothing better than what was found: look at their maximum first.
    const STRETCH: usize = 256;
    for (stretch, values) in row.chunks(STRETCH).enumerate() {
        if top.len() == n && max(isa, values) <= top[n - 1].1 {
            continue;
        }
        for (i, &x) in values.iter().enumerate() {
            if x.is_nan() || (top.len() == n && x <= top[n - 1].1) {
                continue;
            }
            let place = top.partition_point(|(_, better)| *better >= x);
            top.insert(place, ((stretch * STRETCH + i) as u32, x));
            top.truncate(n);
        }
    }
    top
}

/// The largest value that is not NaN, -infinity if there is none.
fn max(isa: Isa, row: &[f32]) -> f32 {
    let mut max = f32::NEG_INFINITY;
    // SAFETY: pools exist only for instruction sets that the CPU has.
    unsafe { on(isa, Max { row, max: &mut max }) };
    max
}

struct Max<'a> {
    row: &'a [f32],
    max: &'a mut f32,
}

impl Kernel for Max<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let (from, length) = (self.row.as_ptr(), self.row.len());
        let whole = length - length % LANES;
        // SAFETY: `from` holds `length` values.
        unsafe {
            let mut max = L::splat(f32::NEG_INFINITY);
            for i in (0..whole).step_by(LANES) {
                max = L::load(from.add(i)).max(max); // a NaN loses as the first operand
            }
            *self.max = self.row[whole..].iter().copied().fold(max.max_lane(), f32::max);
        }
    }
}

/// Adds up e^(x - max) of a row, and keeps the terms in place if asked to.
struct ExpSum<'a> {
    row: *mut f32,
    length: usize,
    max: f32,
    sum: &'a mut f32,
    keep: bool,
}

impl Kernel for ExpSum<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let whole = self.length - self.length % LANES;
        // SAFETY: the caller's; `row` holds `length` values.
        unsafe {
            let max = L::splat(self.max);
            let mut sum = L::splat(0.0);
            for i in (0..whole).step_by(LANES) {
                let term = L::load(self.row.add(i)).sub(max).exp();
                sum = sum.add(term);
                if self.keep {
                    term.store(self.row.add(i));
                }
            }
            // Past the end a term is 0, as in the specification.
            let mut last = [f32::NEG_INFINITY; LANES];
            for i in whole..self.length {
                last[i - whole] = *self.row.add(i);
            }
            let term = L::load(last.as_ptr()).sub(max).exp();
            sum = sum.add(term);
            if self.keep && whole < self.length {
                term.store_part(self.row.add(whole), self.length - whole);
            }
            *self.sum = sum.sum();
        }
    }
}
