//! Int4: symmetric, one scale per group of [`GROUP`] values along k. Only GPUs multiply with it; here is what its codes
//! and scales must be.
//!
//! Groups of 32 and not of 128: of weights that are spread as a normal distribution the root of the mean square error is
//! 8.6 % of the values' instead of 10.4 %, where tails are heavier (Laplace's) 10.6 % instead of 14.2 %, for 0.63 bytes a
//! value instead of 0.53. That the largest value becomes -8, whatever its sign, makes use of all sixteen codes: with
//! ±7 the error is 9.6 and 12.1 %.

/// Values that share a scale.
pub const GROUP: usize = 32;

/// A group whose largest magnitude is below this counts as zeros: 8 / max would overflow.
const TINY: f32 = 1e-30;

/// Bytes that the codes and scales of an `[n, k]` matrix take; every row has whole groups.
pub fn bytes_for(n: usize, k: usize) -> usize {
    n * k.div_ceil(GROUP) * (GROUP / 2 + size_of::<f32>())
}

/// The specification. `x` is rows of `k`; `codes` has two values a byte, the first in the lower half, rows of
/// `ceil(k / GROUP)` groups; `scales` is `[rows, ceil(k / GROUP)]`.
///
/// A value is (code - 8) · scale. The scale is that at which the value of the largest magnitude, the negative one of two
/// alike, is -8; code = x · (1 / scale) rounded to nearest even, at most 7, plus 8. A group of zeros has scale 0. A group
/// with an infinity or a NaN has a NaN scale, so that what is computed from it is NaN too.
pub fn reference(x: &[f32], k: usize, codes: &mut [u8], scales: &mut [f32]) {
    let groups = x.chunks(k.max(1)).flat_map(|row| row.chunks(GROUP));
    for ((x, codes), scale) in groups.zip(codes.chunks_mut(GROUP / 2)).zip(scales) {
        let up = x.iter().fold(0f32, |max, x| max.max(*x));
        let down = x.iter().fold(0f32, |max, x| max.max(-x));
        let zeros = up.max(down) < TINY;
        let inverse = match () {
            _ if zeros => 0.0,
            _ if down >= up => 8.0 / down,
            _ => -(8.0 / up),
        };
        *scale = match () {
            _ if x.iter().any(|x| !x.is_finite()) => f32::NAN,
            _ if zeros => 0.0,
            _ if down >= up => down / 8.0,
            _ => -(up / 8.0),
        };
        for (i, code) in codes.iter_mut().enumerate() {
            let of = |i: usize| {
                let x = x.get(i).copied().unwrap_or(0.0);
                (((x * inverse).round_ties_even() as i32).clamp(-8, 7) + 8) as u8
            };
            *code = of(2 * i) | of(2 * i + 1) << 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantized(x: &[f32]) -> (Vec<u8>, Vec<f32>) {
        let groups = x.len().div_ceil(GROUP);
        let (mut codes, mut scales) = (vec![0; groups * GROUP / 2], vec![0.0; groups]);
        reference(x, x.len(), &mut codes, &mut scales);
        (codes.iter().flat_map(|both| [both & 15, both >> 4]).collect(), scales)
    }

    #[test]
    fn the_largest_value_is_minus_eight_whatever_its_sign() {
        let (codes, scales) = quantized(&[4.0, -2.0, 0.5, -3.75]);
        assert_eq!((&codes[..5], scales[0]), (&[0, 12, 7, 15, 8][..], -0.5));
        let (codes, scales) = quantized(&[-4.0, 4.0, 0.25, 0.75]);
        assert_eq!(
            (&codes[..4], scales[0]),
            (&[0, 15, 8, 10][..], 0.5),
            "7 is the most, and ties go to even"
        );
    }

    #[test]
    fn zeros_and_what_is_no_number_show_in_the_scale() {
        assert_eq!(quantized(&[1e-31; 3]), (vec![8; 32], vec![0.0]));
        assert!(quantized(&[1.0, f32::INFINITY]).1[0].is_nan());
        assert!(quantized(&[1.0, f32::NAN]).1[0].is_nan());
    }
}
