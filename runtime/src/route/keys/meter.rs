//! What a caller has left of what it may take in a minute: token buckets, by an argument's clock.

use std::time::{Duration, Instant};

/// A bucket that holds a minute's worth and is filled steadily.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    per_minute: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn full(per_minute: u64, now: Instant) -> Bucket {
        Bucket { per_minute: per_minute as f64, level: per_minute as f64, at: now }
    }

    /// Another limit from now on; what was taken stays taken.
    pub fn limit(&mut self, per_minute: u64, now: Instant) {
        self.fill(now);
        let taken = self.per_minute - self.level;
        self.per_minute = per_minute as f64;
        self.level = self.per_minute - taken;
    }

    /// Whether `amount` may be taken now, or else how long until then. What is more than a minute's worth may be taken
    /// from a full bucket, or it could never be.
    pub fn has(&mut self, amount: u64, now: Instant) -> Result<(), Duration> {
        self.fill(now);
        let missing = (amount as f64).min(self.per_minute) - self.level;
        if missing <= 0.0 {
            return Ok(());
        }
        // A limit of 0 is never filled.
        Err(Duration::from_secs_f64((missing * 60.0 / self.per_minute.max(1e-3)).min(86_400.0)))
    }

    /// Takes `amount`.
    pub fn take(&mut self, amount: u64) {
        self.level -= amount as f64;
    }

    /// `estimated` was taken for what took `exact`: the rest is taken below zero if need be, or given back.
    pub fn correct(&mut self, estimated: u64, exact: u64) {
        self.level += estimated as f64 - exact as f64;
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * self.per_minute / 60.0).min(self.per_minute);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_minutes_worth_is_there_at_once_and_comes_back_in_a_minute() {
        let now = Instant::now();
        let mut bucket = Bucket::full(60, now);
        assert_eq!(bucket.has(60, now), Ok(()));
        bucket.take(60);
        assert_eq!(bucket.has(1, now), Err(Duration::from_secs(1)));
        assert_eq!(bucket.has(30, now + Duration::from_secs(30)), Ok(()));
        assert_eq!(
            bucket.has(1000, now + Duration::from_secs(60)),
            Ok(()),
            "more than a minute's worth, when it is full"
        );
    }

    #[test]
    fn what_was_taken_stays_taken_when_the_limit_changes() {
        let now = Instant::now();
        let mut bucket = Bucket::full(60, now);
        bucket.take(50);
        bucket.limit(40, now);
        assert!(bucket.has(1, now).is_err());
        bucket.limit(80, now);
        assert_eq!(bucket.has(30, now), Ok(()));
        assert!(bucket.has(31, now).is_err());
    }

    #[test]
    fn nothing_may_be_taken_where_the_limit_is_nothing() {
        let now = Instant::now();
        let mut bucket = Bucket::full(0, now);
        assert_eq!(bucket.has(0, now), Ok(()));
        bucket.take(1);
        assert!(bucket.has(1, now + Duration::from_secs(3600)).is_err());
    }

    #[test]
    fn what_an_estimate_missed_is_owed() {
        let now = Instant::now();
        let mut bucket = Bucket::full(1000, now);
        bucket.take(100);
        bucket.correct(100, 3000);
        assert_eq!(bucket.has(1000, now), Err(Duration::from_secs(180)));
        bucket.correct(2000, 0);
        assert_eq!(bucket.has(1, now), Err(Duration::from_secs_f64(0.06)));
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_a_minutes_worth(asks in prop::collection::vec((0u64..5000, 1u64..50), 1..100)) {
            let start = Instant::now();
            let (mut now, mut taken) = (start, 0);
            let mut bucket = Bucket::full(100, start);
            for (millis, amount) in asks {
                now += Duration::from_millis(millis);
                if bucket.has(amount, now).is_ok() {
                    bucket.take(amount);
                    taken += amount;
                }
                let most = 100.0 + (now - start).as_secs_f64() * 100.0 / 60.0;
                prop_assert!(taken as f64 <= most + 1e-6, "{taken} of {most}");
            }
        }
    }
}
