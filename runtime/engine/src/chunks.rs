//! How many rows of prompts go into a step beside who decodes (chunked prefill).
//!
//! Whoever waits for a next token waits for the whole step. With a target for the time between two tokens, chunks are made
//! so large that steps take about that long: after a step, `rows ← rows · target / seconds`. What a row costs needs not be
//! known for it, and may change with the context and the machine; where a step takes `a + b · rows`, it settles at the
//! target from any beginning, because each change undoes more than it overshoots (the slope at the target is `a / target`).

use std::time::Duration;

/// Rows that prompts get however long steps take, so that they go on.
const LEAST: f64 = 32.0;
/// The share of the target that steps are to take: they vary.
const AIM: f64 = 0.95;
/// A chunk is at most so many times the one before it, and at least so many: one slow step says little.
const CHANGE: [f64; 2] = [0.5, 1.25];
/// A step may take so many times one without prompts, where the target is less: else prompts would never be computed on a
/// machine that only just decodes in time.
const OF_DECODING: f64 = 2.0;
/// Weight of the newest step that only decodes.
const NEWEST: f64 = 0.2;

/// The size of chunks.
#[derive(Clone, Copy, Debug)]
pub struct Chunks {
    target: Option<f64>,
    most: f64,
    rows: f64,
    /// Seconds of a step that only decodes.
    decoding: Option<f64>,
}

impl Chunks {
    /// Chunks of `rows`, always, or with a `target` for the time from one token to the next only at first, and then of
    /// `most` at most.
    pub fn new(rows: usize, target: Option<Duration>, most: usize) -> Chunks {
        Chunks {
            target: target.map(|target| target.as_secs_f64()),
            most: most.max(rows) as f64,
            rows: rows as f64,
            decoding: None,
        }
    }

    /// Rows of prompts in a step in which somebody decodes.
    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    /// A step in which somebody decodes took so long, with so many rows of prompts.
    pub fn took(&mut self, prompt_rows: usize, time: Duration) {
        let (Some(target), seconds) = (self.target, time.as_secs_f64().max(1e-6)) else { return };
        if prompt_rows == 0 {
            let before = self.decoding.unwrap_or(seconds);
            self.decoding = Some(before + NEWEST * (seconds - before));
            return;
        }
        let target = AIM * target.max(OF_DECODING * self.decoding.unwrap_or(0.0));
        // A step with less than it might have had says nothing of larger ones, unless it was too long already.
        if prompt_rows >= self.rows() || seconds > target {
            let [least, most] = CHANGE;
            let rows = self.rows.min(prompt_rows as f64) * (target / seconds).clamp(least, most);
            self.rows = rows.clamp(LEAST.min(self.most), self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(50);

    /// The seconds of the last of `steps`, each with all rows that it may have: `alone` seconds, and `row` more a row.
    fn settled(chunks: &mut Chunks, steps: usize, alone: f64, row: f64) -> f64 {
        let mut seconds = 0.0;
        for _ in 0..steps {
            chunks.took(0, Duration::from_secs_f64(alone));
            seconds = alone + row * chunks.rows() as f64;
            chunks.took(chunks.rows(), Duration::from_secs_f64(seconds));
        }
        seconds
    }

    #[test]
    fn steps_settle_at_the_target_from_above_and_below() {
        for first in [16, 128, 2048] {
            for (alone, row) in [(0.01, 0.0001), (0.02, 0.0005), (0.001, 0.00003)] {
                let mut chunks = Chunks::new(first, Some(TARGET), 4096);
                let seconds = settled(&mut chunks, 40, alone, row);
                assert!((0.045..=0.05).contains(&seconds), "{first} {alone} {row}: {seconds} s");
            }
        }
    }

    #[test]
    fn without_a_target_they_stay() {
        let mut chunks = Chunks::new(128, None, 512);
        chunks.took(128, Duration::from_secs(9));
        assert_eq!(chunks.rows(), 128);
    }

    #[test]
    fn they_stay_within_their_bounds() {
        let mut fast = Chunks::new(128, Some(TARGET), 512);
        settled(&mut fast, 100, 0.001, 1e-6);
        assert_eq!(fast.rows(), 512);
        let mut slow = Chunks::new(128, Some(TARGET), 512);
        settled(&mut slow, 100, 0.001, 0.1);
        assert_eq!(slow.rows(), 32, "prompts go on on a machine that cannot keep the target");
        let mut narrow = Chunks::new(8, Some(TARGET), 20);
        settled(&mut narrow, 100, 0.001, 0.1);
        assert_eq!(narrow.rows(), 20, "steps of 20 rows");
    }

    #[test]
    fn where_decoding_alone_takes_the_target_prompts_take_as_long_again() {
        let mut chunks = Chunks::new(128, Some(TARGET), 4096);
        let seconds = settled(&mut chunks, 100, 0.06, 0.0005);
        assert!((0.108..=0.12).contains(&seconds), "{seconds}");
    }

    #[test]
    fn short_prompts_say_nothing_of_long_ones_unless_they_take_too_long() {
        let mut chunks = Chunks::new(128, Some(TARGET), 4096);
        chunks.took(5, Duration::from_millis(11));
        assert_eq!(chunks.rows(), 128);
        chunks.took(100, Duration::from_millis(95));
        assert_eq!(chunks.rows(), 50);
    }

    #[test]
    fn one_slow_step_halves_them_and_a_few_make_up_for_it() {
        let mut chunks = Chunks::new(128, Some(TARGET), 4096);
        settled(&mut chunks, 40, 0.01, 0.0001);
        let before = chunks.rows();
        chunks.took(before, Duration::from_secs(3));
        assert_eq!(chunks.rows(), before / 2);
        settled(&mut chunks, 8, 0.01, 0.0001);
        assert!(chunks.rows() > before * 9 / 10, "{} of {before}", chunks.rows());
    }
}
