//! What came in each second of the last hour.

use jiff::Timestamp;
use std::collections::VecDeque;

/// Seconds that are remembered.
pub const REMEMBERED: usize = 3600;

/// What came in one second. Below 0 where requests went away unanswered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Arrived {
    /// Requests.
    pub requests: f64,
    /// Their prompt tokens.
    pub prompt_tokens: f64,
}

/// The last [`REMEMBERED`] seconds.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    /// Oldest first; the last is the second `newest`.
    seconds: VecDeque<Arrived>,
    newest: i64,
}

impl Arrivals {
    /// Counts what came at `now`.
    pub fn add(&mut self, now: Timestamp, arrived: Arrived) {
        self.advance(now);
        if let Some(second) = self.seconds.back_mut() {
            second.requests += arrived.requests;
            second.prompt_tokens += arrived.prompt_tokens;
        }
    }

    /// Makes `now` the newest second. A clock that goes back stays in the newest one.
    pub fn advance(&mut self, now: Timestamp) {
        let second = now.as_second();
        if self.seconds.is_empty() {
            self.seconds.push_back(Arrived::default());
            self.newest = second;
        }
        let missing = second.saturating_sub(self.newest).clamp(0, REMEMBERED as i64);
        self.newest = self.newest.max(second);
        for _ in 0..missing {
            self.seconds.push_back(Arrived::default());
        }
        while self.seconds.len() > REMEMBERED {
            self.seconds.pop_front();
        }
    }

    /// The second that is the newest, since 1970.
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// What came in each second, oldest first; the newest is not over yet.
    pub fn seconds(&self) -> impl DoubleEndedIterator<Item = Arrived> + ExactSizeIterator + '_ {
        self.seconds.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn one(prompt_tokens: f64) -> Arrived {
        Arrived { requests: 1.0, prompt_tokens }
    }

    #[test]
    fn seconds_without_arrivals_are_there_and_old_ones_are_forgotten() {
        let mut arrivals = Arrivals::default();
        arrivals.add(at(0), one(10.0));
        arrivals.add(at(0), one(5.0));
        arrivals.add(at(3), one(7.0));
        let tokens: Vec<f64> = arrivals.seconds().map(|second| second.prompt_tokens).collect();
        assert_eq!(tokens, [15.0, 0.0, 0.0, 7.0]);
        arrivals.add(at(1), one(1.0));
        assert_eq!(arrivals.seconds().next_back().unwrap().prompt_tokens, 8.0, "the clock went back");
        arrivals.advance(at(1_000_000));
        assert_eq!(arrivals.seconds().len(), REMEMBERED);
        assert!(arrivals.seconds().all(|second| second.requests == 0.0));
    }
}
