//! Reproducible numbers.

/// A small generator (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to 1.
    pub fn share(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// About normal, mean 0, deviation 1.
    pub fn value(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| self.share() - 0.5).sum();
        sum * 3f32.sqrt()
    }

    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.value()).collect()
    }

    pub fn below(&mut self, most: usize) -> usize {
        (self.bits() % most as u64) as usize
    }

    /// `count` different numbers below `most`.
    pub fn some_of(&mut self, most: usize, count: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..most as u32).collect();
        for i in 0..count {
            let other = i + self.below(most - i);
            all.swap(i, other);
        }
        all.truncate(count);
        all
    }
}
