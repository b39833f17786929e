//! Random numbers from a seed, and the distributions that traffic has.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same seed, the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Others, which do not depend on how many are drawn from these.
    pub fn others(&mut self) -> Self {
        Self(self.next())
    }

    /// Above 0 and at most 1.
    pub fn share(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Exponential with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.share().ln()
    }

    /// Positive, with this mean and this coefficient of variation, 1 or more: one of two exponentials, each with half of
    /// the sum (Morse 1958).
    pub fn varied(&mut self, mean: f64, variation: f64) -> f64 {
        let square = variation * variation;
        let often = (1.0 + ((square - 1.0) / (square + 1.0)).sqrt()) / 2.0;
        let share = if self.share() <= often { often } else { 1.0 - often };
        self.exponential(mean / (2.0 * share))
    }

    /// Normal with mean 0 and deviation 1 (Box, Muller 1958).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.share().ln()).sqrt() * (std::f64::consts::TAU * self.share()).cos()
    }

    /// Lognormal with this median and this 99th percentile.
    pub fn lognormal(&mut self, median: f64, p99: f64) -> f64 {
        (median.ln() + self.normal() * (p99 / median).ln() / NORMAL_P99).exp()
    }
}

/// The 99th percentile of the normal distribution.
const NORMAL_P99: f64 = 2.326_348;
