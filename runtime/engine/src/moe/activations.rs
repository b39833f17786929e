//! How rows travel between ranks: bf16, or 8-bit integers with a scale a row; answers always bf16.
//!
//! Every rank of a replica gives its own experts the values that a rank far away would get ([`round`]), so where an
//! expert is never shows in an answer.

use coterie_api::launch::Activations;
use half::bf16;
use half::slice::HalfFloatSliceExt;

/// Bytes of an encoded row of `width` values.
pub fn row_bytes(activations: Activations, width: usize) -> usize {
    match activations {
        Activations::Bf16 => width * size_of::<bf16>(),
        Activations::Int8 => size_of::<f32>() + width,
    }
}

/// Appends one row, encoded: values in bf16 (nearest, ties to even), little-endian; or an f32 scale, the largest
/// magnitude / 127, and each value / scale rounded to an integer (ties to even).
pub fn encode(activations: Activations, row: &[f32], out: &mut Vec<u8>) {
    match activations {
        Activations::Bf16 => encode_bf16(row, out),
        Activations::Int8 => {
            let (scale, inverse) = int8_scale(row);
            out.extend_from_slice(&scale.to_le_bytes());
            out.extend(row.iter().map(|&value| quantized(value, inverse) as u8));
        }
    }
}

/// The row of `out.len()` values that [`encode`] wrote as `bytes`.
///
/// # Panics
/// If `bytes` is no row of that width.
pub fn decode(activations: Activations, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), row_bytes(activations, out.len()), "a row has its width");
    match activations {
        Activations::Bf16 => decode_bf16(bytes, out),
        Activations::Int8 => {
            let (scale, values) = bytes.split_at(size_of::<f32>());
            let scale = f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]);
            for (out, &value) in out.iter_mut().zip(values) {
                *out = f32::from(value as i8) * scale;
            }
        }
    }
}

/// Appends values in bf16, little-endian.
pub fn encode_bf16(values: &[f32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()));
}

/// As many values as `out` has, from bf16, little-endian.
///
/// # Panics
/// If there are not as many.
pub fn decode_bf16(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * size_of::<bf16>(), "as many values as there is room for");
    match bytemuck::try_cast_slice::<u8, bf16>(bytes) {
        Ok(values) => values.convert_to_f32_slice(out),
        Err(_) => {
            for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *out = bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            }
        }
    }
}

/// Replaces a row by what the other end would decode.
pub fn round(activations: Activations, row: &mut [f32]) {
    match activations {
        Activations::Bf16 => round_bf16(row),
        Activations::Int8 => {
            let (scale, inverse) = int8_scale(row);
            for value in row {
                *value = f32::from(quantized(*value, inverse)) * scale;
            }
        }
    }
}

/// Replaces values by the nearest ones of bf16.
pub fn round_bf16(values: &mut [f32]) {
    for value in values {
        *value = bf16::from_f32(*value).to_f32();
    }
}

/// The scale of a row and what to multiply its values with; a row of zeros, or without finite values, has scale 0.
fn int8_scale(row: &[f32]) -> (f32, f32) {
    let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    match largest.is_finite() && largest > 0.0 {
        true => (largest / 127.0, 127.0 / largest),
        false => (0.0, 0.0),
    }
}

fn quantized(value: f32, inverse: f32) -> i8 {
    // `as` saturates, and a NaN becomes 0.
    (value * inverse).round_ties_even() as i8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_stays_is_what_the_other_end_decodes(
            row in prop::collection::vec(-1e4_f32..1e4, 0..40),
            int8: bool,
        ) {
            let activations = if int8 { Activations::Int8 } else { Activations::Bf16 };
            let mut bytes = Vec::new();
            encode(activations, &row, &mut bytes);
            prop_assert_eq!(bytes.len(), row_bytes(activations, row.len()));
            let mut decoded = vec![0.0; row.len()];
            decode(activations, &bytes, &mut decoded);
            let mut rounded = row.clone();
            round(activations, &mut rounded);
            prop_assert_eq!(&decoded, &rounded);
            let largest = row.iter().fold(0.0_f32, |l, v| l.max(v.abs()));
            for (was, is) in row.iter().zip(&rounded) {
                let bound = if int8 { largest / 127.0 * 0.501 } else { was.abs() / 256.0 };
                prop_assert!((was - is).abs() <= bound, "{} became {}", was, is);
            }
        }
    }

    #[test]
    fn zeros_and_what_is_no_number_do_no_harm() {
        for row in [[0.0, -0.0], [f32::NAN, 1.0], [f32::INFINITY, 1.0]] {
            let mut rounded = row;
            round(Activations::Int8, &mut rounded);
            assert!(rounded.iter().all(|value| value.is_finite()), "{row:?} became {rounded:?}");
        }
        let mut bytes = vec![9];
        encode_bf16(&[1.5, -2.0], &mut bytes);
        let mut out = [0.0; 2];
        decode_bf16(&bytes[1..], &mut out);
        assert_eq!(out, [1.5, -2.0]);
    }
}
