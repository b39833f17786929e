//! How long a rank's answers usually take: what "slow" means for it.

use std::time::Duration;

/// No answer is called slow before this.
pub const LEAST: Duration = Duration::from_millis(500);
/// Nor the first of a rank before this.
const UNKNOWN: Duration = Duration::from_secs(30);
/// An answer is slow if it takes so many times the usual.
const TIMES: u32 = 8;
/// Weight of the newest answer in the mean.
const NEWEST: f64 = 0.2;

/// Mean times by the number of sends, in powers of two.
#[derive(Debug, Default)]
pub struct Usual([Option<f64>; 32]);

impl Usual {
    /// An answer to `sends` sends took `time`.
    pub fn observe(&mut self, sends: u32, time: Duration) {
        let seconds = time.as_secs_f64();
        let mean = &mut self.0[class(sends)];
        *mean = Some(mean.map_or(seconds, |mean| mean + NEWEST * (seconds - mean)));
    }

    /// For so long an answer to `sends` sends is not slow. Of a number that was not seen yet, less than in proportion
    /// to the next smaller one is assumed to be usual.
    pub fn limit(&self, sends: u32) -> Duration {
        let class = class(sends);
        let smaller =
            (0..=class).rev().find_map(|at| self.0[at].map(|mean| mean * f64::from(1_u32 << (class - at))));
        let larger = || self.0[class..].iter().find_map(|mean| *mean);
        let usual = smaller.or_else(larger).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        usual.map_or(UNKNOWN, |usual| usual.saturating_mul(TIMES).max(LEAST))
    }
}

fn class(sends: u32) -> usize {
    sends.max(1).ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_is_what_takes_many_times_the_usual() {
        let mut usual = Usual::default();
        assert_eq!(usual.limit(1), UNKNOWN);
        usual.observe(4, Duration::from_millis(1));
        assert_eq!(usual.limit(4), LEAST);
        usual.observe(64, Duration::from_millis(200));
        assert_eq!(usual.limit(64), Duration::from_millis(1600));
        assert_eq!(usual.limit(256), Duration::from_millis(6400), "four times as many");
        assert_eq!(usual.limit(1), LEAST, "fewer than were ever sent");
        assert!(usual.limit(u32::MAX) > Duration::from_secs(1000));
        for _ in 0..100 {
            usual.observe(64, Duration::from_millis(400));
        }
        let limit = usual.limit(100);
        assert!(limit > Duration::from_millis(3199) && limit <= Duration::from_millis(3200), "{limit:?}");
    }
}
