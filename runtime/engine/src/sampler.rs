//! From logits to a token. Each draw's randomness is a function of the request's seed and of how many tokens it has
//! generated, and of nothing else: no generator has a state that another request could move.

use crate::model::Logits;
use crate::request::Sampling;

/// Chooses tokens; keeps its scratch memory between calls.
#[derive(Debug, Default)]
pub struct Sampler {
    row: Vec<f32>,
    order: Vec<u32>,
}

/// The logits of a row are not numbers: the model has broken down on this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNumbers;

impl Sampler {
    /// The token behind a row, for a request that has `generated` tokens so far.
    ///
    /// A temperature that is not positive is 0; `top_p` is clamped to
    /// 0..=1, and at 0 leaves the most probable token.
    pub fn sample(
        &mut self,
        logits: &dyn Logits,
        row: usize,
        sampling: &Sampling,
        generated: usize,
    ) -> Result<u32, NotNumbers> {
        let (best, max) = logits.argmax(row);
        if !max.is_finite() {
            return Err(NotNumbers);
        }
        if sampling.temperature.is_nan() || sampling.temperature <= 0.0 {
            return Ok(best);
        }
        logits.copy_row(row, &mut self.row);
        for value in &mut self.row {
            let scaled = ((*value - max) / sampling.temperature).exp();
            *value = if scaled.is_nan() { 0.0 } else { scaled };
        }
        let draw = uniform(sampling.seed, generated as u64);
        Ok(if sampling.top_p < 1.0 {
            let kept = self.nucleus(sampling.top_p);
            pick(&self.row, self.order[..kept].iter().copied(), draw)
        } else {
            pick(&self.row, 0..self.row.len() as u32, draw)
        })
    }

    /// Orders the most probable tokens, best first, ties lowest id first, until their share of the whole reaches
    /// `top_p`; returns how many they are, at least one. Sorts only as far as it must look.
    fn nucleus(&mut self, top_p: f32) -> usize {
        let Sampler { row, order } = self;
        order.clear();
        order.extend(0..row.len() as u32);
        let before = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
        let enough = f64::from(top_p) * row.iter().map(|&p| f64::from(p)).sum::<f64>();

        let (mut sorted, mut share) = (0, 0.0);
        while sorted < order.len() {
            let next = (sorted * 8).max(64).min(order.len());
            if next < order.len() {
                order[sorted..].select_nth_unstable_by(next - sorted, before);
            }
            order[sorted..next].sort_unstable_by(before);
            for (at, &token) in order.iter().enumerate().take(next).skip(sorted) {
                share += f64::from(row[token as usize]);
                if share >= enough {
                    return at + 1;
                }
            }
            sorted = next;
        }
        order.len()
    }
}

/// The candidate in whose share of the weights `draw`, 0 to 1, falls.
fn pick(weights: &[f32], candidates: impl Iterator<Item = u32> + Clone, draw: f64) -> u32 {
    let total: f64 = candidates.clone().map(|token| f64::from(weights[token as usize])).sum();
    let (mut left, mut last) = (draw * total, 0);
    for token in candidates {
        let weight = f64::from(weights[token as usize]);
        if weight > 0.0 {
            last = token;
            if left < weight {
                return token;
            }
            left -= weight;
        }
    }
    // Rounding may leave a trifle behind the last one.
    last
}

/// Number `index` of the sequence that `seed` names, uniform in 0..1 with 53 bits.
fn uniform(seed: u64, index: u64) -> f64 {
    let [low, high, ..] =
        philox([index as u32, (index >> 32) as u32, 0, 0], [seed as u32, (seed >> 32) as u32]);
    ((u64::from(high) << 32 | u64::from(low)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a block of random bits from a
/// counter and a key.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = 0xD251_1F53 * u64::from(counter[0]);
        let b = 0xCD9E_8D57 * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(Vec<f32>);

    impl Logits for Row {
        fn argmax(&self, _: usize) -> (u32, f32) {
            let best = |a: usize, b: usize| if self.0[b] > self.0[a] || self.0[a].is_nan() { b } else { a };
            let best = (0..self.0.len()).reduce(best).unwrap();
            (best as u32, self.0[best])
        }
        fn log_softmax_top(&self, _: usize, token: u32, _: usize) -> (f32, Vec<(u32, f32)>) {
            (self.0[token as usize], Vec::new())
        }
        fn copy_row(&self, _: usize, out: &mut Vec<f32>) {
            out.clone_from(&self.0);
        }
    }

    fn sampling(temperature: f32, top_p: f32, seed: u64) -> Sampling {
        Sampling { temperature, top_p, seed }
    }

    fn draws(logits: &Row, temperature: f32, top_p: f32, count: usize) -> Vec<usize> {
        let mut sampler = Sampler::default();
        let mut seen = vec![0; logits.0.len()];
        for i in 0..count {
            let token = sampler.sample(logits, 0, &sampling(temperature, top_p, i as u64), 3).unwrap();
            seen[token as usize] += 1;
        }
        seen
    }

    #[test]
    fn philox_gives_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([0xffff_ffff; 4], [0xffff_ffff; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn temperature_zero_is_the_lowest_of_the_best() {
        let row = Row(vec![1.0, 4.0, 4.0, f32::NAN]);
        for temperature in [0.0, -1.0, f32::NAN] {
            assert_eq!(Sampler::default().sample(&row, 0, &sampling(temperature, 1.0, 9), 0), Ok(1));
        }
    }

    #[test]
    fn shares_follow_the_temperature() {
        let row = Row(vec![0.0, (3f32).ln(), f32::NEG_INFINITY, f32::NAN]);
        let seen = draws(&row, 1.0, 1.0, 4000);
        assert!((2850..3150).contains(&seen[1]) && seen[2] + seen[3] == 0, "{seen:?}");
        // At temperature 1/2 the odds are 1 : 9.
        let seen = draws(&row, 0.5, 1.0, 4000);
        assert!((3500..3700).contains(&seen[1]), "{seen:?}");
    }

    #[test]
    fn the_nucleus_is_the_smallest_set_that_reaches_top_p() {
        let row = Row([0.1f32, 0.4, 0.2, 0.3].map(f32::ln).to_vec());
        assert_eq!(draws(&row, 1.0, 0.39, 200), [0, 200, 0, 0]);
        let seen = draws(&row, 1.0, 0.65, 2000);
        assert!(seen[0] == 0 && seen[2] == 0 && (1000..1300).contains(&seen[1]), "{seen:?}");
        assert!(draws(&row, 1.0, 0.75, 2000)[2] > 0);
        assert_eq!(draws(&row, 1.0, 0.0, 50), [0, 50, 0, 0]);
    }

    #[test]
    fn a_long_nucleus_is_found_in_order() {
        let mut sampler = Sampler { row: vec![1.0; 5000], order: Vec::new() };
        sampler.row[4000] = 2.0;
        let kept = sampler.nucleus(0.5);
        assert_eq!(kept, 2500);
        assert_eq!(sampler.order[..3], [4000, 0, 1]);
        assert_eq!(sampler.order[kept - 1], 2498);
        assert_eq!(sampler.nucleus(1.0), 5000);
    }

    #[test]
    fn a_draw_depends_on_seed_and_index_only() {
        let row = Row(vec![0.0; 1000]);
        let mut sampler = Sampler::default();
        let first = sampler.sample(&row, 0, &sampling(1.0, 1.0, 5), 0);
        sampler.sample(&row, 0, &sampling(1.0, 0.3, 6), 1).unwrap();
        assert_eq!(sampler.sample(&row, 0, &sampling(1.0, 1.0, 5), 0), first);
        assert_ne!(sampler.sample(&row, 0, &sampling(1.0, 1.0, 5), 1), first);
        assert_ne!(sampler.sample(&row, 0, &sampling(1.0, 1.0, 6), 0), first);
    }

    #[test]
    fn logits_that_are_no_numbers_are_told() {
        for broken in [f32::NAN, f32::INFINITY] {
            let row = Row(vec![broken; 3]);
            assert_eq!(Sampler::default().sample(&row, 0, &sampling(1.0, 1.0, 0), 0), Err(NotNumbers));
        }
        let row = Row(vec![f32::NAN; 3]);
        assert_eq!(Sampler::default().sample(&row, 0, &sampling(0.0, 1.0, 0), 0), Err(NotNumbers));
    }
}
