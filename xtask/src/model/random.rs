//! Random numbers that are the same on every machine: integer arithmetic and one exact division, no libm.

/// SplitMix64 (Steele, Lea, Flood 2014): a counter in steps of the golden ratio, mixed.
pub struct Random {
    counter: u64,
}

/// What a stream is for. Streams of different purpose, layer or expert are unrelated.
#[derive(Clone, Copy)]
pub enum Purpose {
    Gate = 1,
    Permutation = 2,
}

impl Random {
    pub fn new(purpose: Purpose, layer: usize, expert: usize) -> Self {
        let mut random =
            Random { counter: ((purpose as u64) << 48) | ((layer as u64) << 24) | expert as u64 };
        // Seeds are small numbers side by side: start each stream at a mixed place of the period.
        random.counter = random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.counter;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `limit` (limit > 0); the bias of at most limit / 2^64 does not matter here.
    fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    /// Mean 0, variance 1: the sum of twelve uniform numbers less 6 (Irwin-Hall), exact in integers.
    pub fn normal(&mut self) -> f64 {
        let sum: u64 = (0..6).map(|_| self.next()).map(|bits| (bits >> 32) + (bits & 0xffff_ffff)).sum();
        (sum as i64 - (6 << 32)) as f64 / (1u64 << 32) as f64
    }

    /// A random order of 0..len (Fisher-Yates).
    pub fn permutation(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for last in (1..len).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of SplitMix64 from a counter of 1234567, as published with the reference implementation.
    #[test]
    fn matches_the_published_stream() {
        let mut random = Random { counter: 1_234_567 };
        let stream: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(stream, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut random = Random::new(Purpose::Gate, 3, 0);
        let values: Vec<f64> = (0..40_000).map(|_| random.normal()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "mean {mean}, variance {variance}");
    }

    #[test]
    fn permutations_are_whole_and_differ_between_experts() {
        let orders: Vec<Vec<usize>> =
            (0..3).map(|expert| Random::new(Purpose::Permutation, 0, expert).permutation(1536)).collect();
        assert!(orders[0] != orders[1] && orders[1] != orders[2]);
        for mut order in orders {
            order.sort_unstable();
            assert!(order.into_iter().eq(0..1536));
        }
    }
}
