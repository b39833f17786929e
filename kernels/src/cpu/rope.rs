//! Rotary position embedding on half-split pairs: element i turns with element i + rotary_dim / 2.

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
    /// Angles `position / theta^(2i / rotary_dim)`.
    ///
    /// Power, its inverse and the angle are each rounded to f32, as in the implementations that models are trained
    /// with: at position 8000 an unrounded angle would differ by 2e-4. Only cosine and sine are taken in f64.
    ///
    /// # Panics
    /// If `rotary_dim` is odd.
    pub fn new(theta: f64, rotary_dim: usize, max_positions: usize) -> Table {
        assert!(rotary_dim.is_multiple_of(2), "rotary_dim is even");
        let half = rotary_dim / 2;
        let frequency = |i: usize| {
            let exponent = (2 * i) as f32 / rotary_dim as f32;
            1.0 / theta.powf(f64::from(exponent)) as f32
        };
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let (mut cos, mut sin) =
            (Vec::with_capacity(max_positions * half), Vec::with_capacity(max_positions * half));
        for position in 0..max_positions {
            for frequency in &frequencies {
                let angle = f64::from(position as f32 * frequency);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        Table { cos, sin, half, max_positions }
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
    let dim = heads * head_dim;
    assert_eq!(x.len(), positions.len() * dim, "x is [rows, heads, head_dim]");
    assert!(2 * table.half <= head_dim, "rotary_dim is at most head_dim");
    if dim == 0 {
        return;
    }
    let length = chunk_of_rows(dim);
    pool.chunks(x, length, |index, rows| {
        for (row, &position) in rows.chunks_exact_mut(dim).zip(&positions[index * length / dim..]) {
            let from = position as usize * table.half;
            let (cos, sin) = (&table.cos[from..][..table.half], &table.sin[from..][..table.half]);
            for head in row.chunks_exact_mut(head_dim) {
                rotate(head, cos, sin);
            }
        }
    });
}

/// No fused multiply-add here, so the compiler's vectors give the scalar result.
#[inline]
fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (low, high) = head[..2 * cos.len()].split_at_mut(cos.len());
    for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
        (*low, *high) = (*low * cos - *high * sin, *high * cos + *low * sin);
    }
}
