//! How many tokens of a guess are worth computing, by how often guesses came true lately.

use super::Worth;

/// What is left of a judgement's weight when the next one is made: some sixteen count.
const KEPT: f32 = 15.0 / 16.0;

/// How often guesses of one kind about one text come true.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Guessed tokens that came, the newer the heavier.
    came: f32,
    /// Those and the ones that did not.
    judged: f32,
}

impl Pace {
    /// Nothing is known: one that comes true is needed before any is computed.
    pub fn new() -> Pace {
        Pace { came: 2.0, judged: 4.0 }
    }

    /// How many tokens are worth computing. The n-th comes only with all before it.
    pub fn length(&self, worth: Worth, most: usize) -> usize {
        let rate = self.came / self.judged;
        if rate < worth.first {
            return 0;
        }
        let chances = std::iter::successors(Some(rate), |chance| Some(chance * rate));
        chances.take(most).take_while(|chance| *chance >= worth.further).count()
    }

    /// Of a guess, the first `came` tokens came, and one more was `missed`.
    pub fn judge(&mut self, came: usize, missed: bool) {
        let judgements = std::iter::repeat_n(1.0, came).chain(missed.then_some(0.0));
        for judgement in judgements {
            self.came = self.came * KEPT + judgement;
            self.judged = self.judged * KEPT + 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORTH: Worth = Worth { first: 0.6, further: 0.4 };

    fn after(judgements: &[(usize, bool)]) -> Pace {
        let mut pace = Pace::new();
        judgements.iter().for_each(|(came, missed)| pace.judge(*came, *missed));
        pace
    }

    #[test]
    fn who_is_right_goes_further_and_who_is_wrong_stops() {
        assert_eq!(after(&[]).length(WORTH, 8), 0);
        assert_eq!(after(&[(1, false)]).length(WORTH, 8), 1);
        assert_eq!(after(&[(8, false); 10]).length(WORTH, 8), 8);
        assert_eq!(after(&[(0, true); 4]).length(WORTH, 8), 0);
        assert_eq!(after(&[(3, true); 20]).length(WORTH, 8), 2);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut pace = after(&[(0, true); 1000]);
        pace.judge(20, false);
        assert!(pace.length(WORTH, 8) > 0);
        pace.judge(1000, false);
        (0..20).for_each(|_| pace.judge(0, true));
        assert_eq!(pace.length(WORTH, 8), 0);
    }

    #[test]
    fn where_nothing_costs_anything_everything_is_tried() {
        assert_eq!(after(&[(0, true); 1000]).length(Worth { first: 0.0, further: 0.0 }, 5), 5);
    }
}
