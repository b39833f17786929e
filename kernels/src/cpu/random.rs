//! Random weights: each value follows from a seed and its number alone, so any part can be made by itself, anywhere.

use half::bf16;

/// Value number `number`, uniform over ±2²³ · `scale`, rounded to bf16. The bits are those of splitmix64 (Steele, Lea and
/// Flood, "Fast splittable pseudorandom number generators", 2014) after `number` + 1 steps from `seed`.
pub fn value(seed: u64, number: u64, scale: f32) -> bf16 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    // The upper 24 bits as a whole number from -2²³ to 2²³ - 1: exact in f32.
    bf16::from_f32(((z >> 40) as i32 - (1 << 23)) as f32 * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_splitmix64s() {
        // The first three of seed 1234567, as its authors' C code prints them.
        let known = [6_457_827_717_110_365_317u64, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        for (number, bits) in known.into_iter().enumerate() {
            let expected = ((bits >> 40) as i32 - (1 << 23)) as f32;
            assert_eq!(value(1_234_567, number as u64, 1.0), bf16::from_f32(expected));
        }
    }

    #[test]
    fn values_fill_their_range_evenly() {
        let values: Vec<f32> = (0..100_000).map(|i| value(7, i, 1.0 / (1 << 23) as f32).to_f32()).collect();
        let mean: f32 = values.iter().sum::<f32>() / values.len() as f32;
        let square: f32 = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
        assert!(values.iter().all(|x| x.abs() <= 1.0));
        assert!(mean.abs() < 0.01 && (square - 1.0 / 3.0).abs() < 0.01, "mean {mean}, square {square}");
    }
}
