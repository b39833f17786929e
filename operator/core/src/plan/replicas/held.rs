//! The most that was needed in a window of time.

use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;

/// Keeps the maximum of the last while; memory is one entry for each number that may still become the maximum.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Times rise, numbers fall.
    entries: VecDeque<(Timestamp, usize)>,
}

impl Held {
    /// Takes what is needed now, and gives the most of the last `window`.
    pub fn take(&mut self, needed: usize, now: Timestamp, window: SignedDuration) -> usize {
        while self.entries.back().is_some_and(|(_, before)| *before <= needed) {
            self.entries.pop_back();
        }
        self.entries.push_back((now, needed));
        while self.entries.front().is_some_and(|(at, _)| now.duration_since(*at) > window) {
            self.entries.pop_front();
        }
        self.entries.front().map_or(needed, |(_, most)| *most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_of_the_window_holds_until_it_is_over() {
        let mut held = Held::default();
        let window = SignedDuration::from_secs(10);
        let mut take = |second, needed| held.take(needed, Timestamp::from_second(second).unwrap(), window);
        let seen: Vec<usize> = [(0, 3), (2, 5), (4, 2), (8, 4), (12, 1), (13, 1), (18, 1), (19, 1), (24, 1)]
            .map(|(second, needed)| take(second, needed))
            .into();
        assert_eq!(seen, [3, 5, 5, 5, 5, 4, 4, 1, 1]);
    }
}
