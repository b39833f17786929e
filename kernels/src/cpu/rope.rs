//! Rotary position embedding: pairs of a head's values turn by their token's position. A pair is element i and element
//! i + rotary_dim / 2 ([`half_split`]), or neighbours ([`interleaved`]).

use super::disjoint::chunk_of_rows;
use super::pool::Pool;

/// Cosines and sines for every position, made once per model.
#[derive(Clone, Debug)]
pub struct Table {
    /// `[max_positions, rotary_dim / 2]`
    cos: Vec<f32>,
    /// `[max_positions, rotary_dim / 2]`
    sin: Vec<f32>,
    half: usize,
    max_positions: usize,
}

impl Table {
    /// Angles `position · frequencies[i]`, their cosines and sines times `factor`.
    ///
    /// The angle is rounded to f32, as in the implementations that models are trained with: at position 8000 an
    /// unrounded angle would differ by 2e-4. Only cosine and sine are taken in f64.
    pub fn new(frequencies: &[f32], factor: f32, max_positions: usize) -> Table {
        let half = frequencies.len();
        let (mut cos, mut sin) =
            (Vec::with_capacity(max_positions * half), Vec::with_capacity(max_positions * half));
        for position in 0..max_positions {
            for frequency in frequencies {
                let angle = f64::from(position as f32 * frequency);
                cos.push(angle.cos() as f32 * factor);
                sin.push(angle.sin() as f32 * factor);
            }
        }
        Table { cos, sin, half, max_positions }
    }

    /// Cosines and sines, each `[max_positions, rotary_dim / 2]`, for a device that has the table in its own memory.
    pub fn values(&self) -> [&[f32]; 2] {
        [&self.cos, &self.sin]
    }

    /// Pairs of a head that turn: rotary_dim / 2.
    pub fn pairs(&self) -> usize {
        self.half
    }

    /// Positions that the table covers.
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }
}

/// Rotates `x`, `[rows, heads, head_dim]`, in place by each row's position; values from `rotary_dim` on stay.
///
/// # Panics
/// If a length does not fit, or a position is not in the table.
pub fn half_split(
    pool: &Pool,
    x: &mut [f32],
    table: &Table,
    positions: &[u32],
    heads: usize,
    head_dim: usize,
) {
    rotate(pool, x, table, positions, [heads, head_dim], |head, cos, sin| {
        let (low, high) = head.split_at_mut(cos.len());
        for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            (*low, *high) = turn(*low, *high, *cos, *sin);
        }
    });
}

/// [`half_split`] with neighbours as pairs.
///
/// # Panics
/// As [`half_split`].
pub fn interleaved(
    pool: &Pool,
    x: &mut [f32],
    table: &Table,
    positions: &[u32],
    heads: usize,
    head_dim: usize,
) {
    rotate(pool, x, table, positions, [heads, head_dim], |head, cos, sin| {
        for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
            (pair[0], pair[1]) = turn(pair[0], pair[1], *cos, *sin);
        }
    });
}

/// Calls `of_head` with the rotated values of each head, and cosines and sines of its position.
fn rotate(
    pool: &Pool,
    x: &mut [f32],
    table: &Table,
    positions: &[u32],
    [heads, head_dim]: [usize; 2],
    of_head: impl Fn(&mut [f32], &[f32], &[f32]) + Sync,
) {
    let (dim, half) = (heads * head_dim, table.half);
    assert_eq!(x.len(), positions.len() * dim, "x is [rows, heads, head_dim]");
    assert!(2 * half <= head_dim, "rotary_dim is at most head_dim");
    if dim == 0 {
        return;
    }
    let length = chunk_of_rows(dim);
    pool.chunks(x, length, |index, rows| {
        for (row, &position) in rows.chunks_exact_mut(dim).zip(&positions[index * length / dim..]) {
            let from = position as usize * half;
            let (cos, sin) = (&table.cos[from..][..half], &table.sin[from..][..half]);
            row.chunks_exact_mut(head_dim).for_each(|head| of_head(&mut head[..2 * half], cos, sin));
        }
    });
}

/// No fused multiply-add here, so the compiler's vectors give the scalar result.
#[inline]
fn turn(low: f32, high: f32, cos: f32, sin: f32) -> (f32, f32) {
    (low * cos - high * sin, high * cos + low * sin)
}
