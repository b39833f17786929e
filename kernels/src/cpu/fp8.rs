//! Fp8 weights: e4m3 codes, and one f32 scale for each block of a matrix. They are widened while loading.

use half::bf16;

use super::disjoint::chunk_of_rows;
use super::pool::Pool;

/// Some rows of a matrix in fp8.
#[derive(Clone, Copy, Debug)]
pub struct Fp8View<'a> {
    /// `[rows, columns]`
    pub codes: &'a [u8],
    /// Columns of the matrix.
    pub columns: usize,
    /// Scales of the whole matrix, `[ceil(all rows / block rows), ceil(columns / block columns)]`.
    pub scales: &'a [f32],
    /// Rows and columns of a block.
    pub block: [usize; 2],
    /// Rows of the whole matrix before these.
    pub first_row: usize,
}

/// The number that a code stands for, exactly: a sign, four bits of exponent and three of mantissa, no infinities
/// (OCP 8-bit floating point, E4M3).
pub fn widen(code: u8) -> f32 {
    // At the place of an f32's exponent, the four bits count from 2^-127 and not from 2^-7.
    const REBASE: f32 = f32::from_bits((127 + 120) << 23);
    let magnitude = u32::from(code & 0x7f);
    let value = f32::from_bits(u32::from(code & 0x80) << 24 | magnitude << 20) * REBASE;
    if magnitude == 0x7f { f32::NAN } else { value }
}

/// Code times scale, rounded to bf16, as the script that comes with DeepSeek-V3 does it.
///
/// # Panics
/// If a length does not fit.
pub fn to_bf16(pool: &Pool, w: Fp8View<'_>) -> Vec<bf16> {
    let Fp8View { codes, columns, scales, block: [block_rows, block_columns], first_row } = w;
    let mut out = vec![bf16::ZERO; codes.len()];
    if out.is_empty() {
        return out;
    }
    assert!(codes.len().is_multiple_of(columns), "codes are [rows, columns]");
    let row_of_scales = columns.div_ceil(block_columns);
    let length = chunk_of_rows(columns);
    pool.chunks(&mut out, length, |index, out| {
        let first = index * length / columns;
        let rows = out.chunks_exact_mut(columns).zip(codes[first * columns..].chunks_exact(columns));
        for (row, (out, codes)) in (first_row + first..).zip(rows) {
            let scales = &scales[row / block_rows * row_of_scales..][..row_of_scales];
            let blocks = out.chunks_mut(block_columns).zip(codes.chunks(block_columns));
            for ((out, codes), scale) in blocks.zip(scales) {
                let values = out.iter_mut().zip(codes);
                values.for_each(|(out, code)| *out = bf16::from_f32(widen(*code) * scale));
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_the_number_that_its_bits_say() {
        for code in 0..=255u8 {
            let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7) / 8.0);
            let sign = if code < 128 { 1.0 } else { -1.0 };
            let expected = match (exponent, code & 7) {
                (15, 7) => f32::NAN,
                (0, _) => sign * mantissa * 2f32.powi(-6),
                _ => sign * (1.0 + mantissa) * 2f32.powi(exponent - 7),
            };
            assert!(widen(code) == expected || widen(code).is_nan() && expected.is_nan(), "{code}");
        }
        assert_eq!((widen(0x38), widen(0x7e), widen(0x81)), (1.0, 448.0, -0.001_953_125));
    }

    #[test]
    fn a_value_has_the_scale_of_its_block() {
        // 5 × 7 in blocks of 2 × 3: the last blocks are narrower and lower. All codes are 1.
        let scales: Vec<f32> = (1..=9).map(|n| n as f32).collect();
        let whole = Fp8View { codes: &[0x38; 35], columns: 7, scales: &scales, block: [2, 3], first_row: 0 };
        let all: Vec<f32> = to_bf16(&Pool::new(2), whole).iter().map(|x| x.to_f32()).collect();
        assert_eq!(all[..7], [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0]);
        assert_eq!(all[28..], [7.0, 7.0, 7.0, 8.0, 8.0, 8.0, 9.0]);
        let last = Fp8View { codes: &[0x38; 14], first_row: 3, ..whole };
        let rows: Vec<f32> = to_bf16(&Pool::new(1), last).iter().map(|x| x.to_f32()).collect();
        assert_eq!(rows, all[21..]);
    }
}
