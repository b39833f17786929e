//! How fast a rank is, fitted from what it counts.
//!
//! A step of the engine computes chunks of prompts and one token of each running request. Its time is nearly linear in
//! both, so the time of any stretch is
//!
//! ```text
//! busy = step · steps + token · generated tokens + prompt · computed prompt tokens
//! ```
//!
//! with three coefficients that cannot be negative: non-negative least squares over the stretches between two answers
//! of a rank. With three unknowns every set of coefficients that are not zero can be tried.

use coterie_api::rank_load::RankLoad;

/// What a rank takes for what, seconds; none is negative.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// For a step, whatever is in it.
    pub step: f64,
    /// More for each running request in a step.
    pub token: f64,
    /// More for each prompt token in a step.
    pub prompt: f64,
}

/// What a rank did between two of its answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stretch {
    /// Steps, generated tokens, computed prompt tokens.
    pub counts: [f64; 3],
    /// Seconds that the steps took.
    pub busy: f64,
}

impl Stretch {
    /// From the answer before; nothing if the rank has begun to count anew.
    pub fn between(before: &RankLoad, after: &RankLoad) -> Option<Stretch> {
        let grown = |before: u64, after: u64| after.checked_sub(before).map(|count| count as f64);
        let busy = after.busy_seconds - before.busy_seconds;
        if before.since != after.since || !busy.is_finite() || busy < 0.0 {
            return None;
        }
        Some(Stretch {
            counts: [
                grown(before.steps, after.steps)?,
                grown(before.generated_tokens, after.generated_tokens)?,
                grown(before.computed_tokens, after.computed_tokens)?,
            ],
            busy,
        })
    }
}

/// Fewer steps say little.
const STEPS_ENOUGH: f64 = 20.0;
/// Relative weight by which tokens and prompts are drawn to zero: where all stretches are alike, and only then, what
/// cannot be told apart is counted to the step.
const DRAW: f64 = 1e-4;

/// Sums from which the rates follow; older stretches count less and less.
#[derive(Clone, Debug, Default)]
pub struct Fit {
    products: [[f64; 3]; 3],
    with_busy: [f64; 3],
    steps: f64,
}

impl Fit {
    /// Takes a stretch. Its weight is 1 / busy: long stretches are the sum of many steps, whose errors add up.
    pub fn take(&mut self, stretch: &Stretch) {
        if stretch.busy <= 0.0 || stretch.counts[0] <= 0.0 {
            return;
        }
        for (row, count) in stretch.counts.iter().enumerate() {
            for (column, other) in stretch.counts.iter().enumerate() {
                self.products[row][column] += count * other / stretch.busy;
            }
            self.with_busy[row] += count;
        }
        self.steps += stretch.counts[0];
    }

    /// Lets all that was taken count `factor` as much.
    pub fn fade(&mut self, factor: f64) {
        self.products.as_flattened_mut().iter_mut().for_each(|sum| *sum *= factor);
        self.with_busy.iter_mut().for_each(|sum| *sum *= factor);
        self.steps *= factor;
    }

    /// The rates; `None` before enough steps were seen.
    pub fn rates(&self) -> Option<Rates> {
        if self.steps < STEPS_ENOUGH {
            return None;
        }
        let subsets = (1..8_u32).map(|set| [0, 1, 2].map(|at| set & (1 << at) != 0));
        let solutions = subsets.filter_map(|free| self.solve(free));
        let best = solutions.min_by(|a, b| self.error(a).total_cmp(&self.error(b)))?;
        Some(Rates { step: best[0], token: best[1], prompt: best[2] })
    }

    /// The sums with the draw, which is relative to the scale of each coefficient.
    fn drawn(&self, row: usize, column: usize) -> f64 {
        let sum = self.products[row][column];
        if row == column && row > 0 { sum * (1.0 + DRAW) } else { sum }
    }

    /// Squared error, but for what is the same for all solutions.
    fn error(&self, solution: &[f64; 3]) -> f64 {
        let mut error = 0.0;
        for row in 0..3 {
            let products: f64 = (0..3).map(|column| self.drawn(row, column) * solution[column]).sum();
            error += solution[row] * (products - 2.0 * self.with_busy[row]);
        }
        error
    }

    /// The least squares in the coefficients that are `free`, the others 0, if none is negative.
    fn solve(&self, free: [bool; 3]) -> Option<[f64; 3]> {
        let mut rows: Vec<[f64; 4]> = Vec::new();
        for row in 0..3 {
            // A coefficient that is not free has the equation x = 0.
            let mut equation = [0.0; 4];
            for (column, value) in equation.iter_mut().take(3).enumerate() {
                *value = match (free[row] && free[column], row == column) {
                    (true, _) => self.drawn(row, column),
                    (false, same) => f64::from(u8::from(same)),
                };
            }
            equation[3] = if free[row] { self.with_busy[row] } else { 0.0 };
            rows.push(equation);
        }
        for pivot in 0..3 {
            let diagonal = rows[pivot][pivot];
            // Counts are 0 or at least 1, so a sum that is nearly 0 is one that depends on the others.
            if diagonal.abs() < 1e-9 * self.drawn(pivot, pivot).max(1e-9) {
                return None;
            }
            let upper = rows[pivot].map(|value| value / diagonal);
            rows[pivot] = upper;
            for (at, row) in rows.iter_mut().enumerate() {
                if at != pivot {
                    let factor = row[pivot];
                    row.iter_mut().zip(upper).for_each(|(value, upper)| *value -= factor * upper);
                }
            }
        }
        let solution = [rows[0][3], rows[1][3], rows[2][3]];
        solution.iter().all(|value| value.is_finite() && *value >= 0.0).then_some(solution)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUE: Rates = Rates { step: 0.010, token: 0.0003, prompt: 0.000_125 };

    fn stretch(steps: f64, generated: f64, computed: f64) -> Stretch {
        let busy = TRUE.step * steps + TRUE.token * generated + TRUE.prompt * computed;
        Stretch { counts: [steps, generated, computed], busy }
    }

    #[track_caller]
    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 0.02 * expected, "{found} is not {expected}");
    }

    #[test]
    fn the_rates_of_a_rank_are_found() {
        let mut fit = Fit::default();
        for (steps, batch, computed) in [(80.0, 10.0, 0.0), (40.0, 40.0, 9000.0), (60.0, 25.0, 2000.0)] {
            fit.take(&stretch(steps, steps * batch, computed));
        }
        let rates = fit.rates().unwrap();
        near(rates.step, TRUE.step);
        near(rates.token, TRUE.token);
        near(rates.prompt, TRUE.prompt);
    }

    #[test]
    fn what_cannot_be_told_apart_is_the_steps() {
        let mut fit = Fit::default();
        for _ in 0..100 {
            fit.take(&stretch(50.0, 50.0, 0.0));
        }
        let rates = fit.rates().unwrap();
        near(rates.step, TRUE.step + TRUE.token);
        assert!(rates.token < 0.01 * rates.step, "{rates:?}");
        assert_eq!(rates.prompt, 0.0);
    }

    #[test]
    fn no_rate_is_negative_whatever_ranks_say() {
        let mut fit = Fit::default();
        fit.take(&Stretch { counts: [100.0, 10.0, 0.0], busy: 1.0 });
        fit.take(&Stretch { counts: [100.0, 1000.0, 50.0], busy: 0.5 });
        fit.take(&Stretch { counts: [10.0, 0.0, 5000.0], busy: 3.0 });
        let rates = fit.rates().unwrap();
        assert!(rates.step >= 0.0 && rates.token >= 0.0 && rates.prompt >= 0.0, "{rates:?}");
    }

    #[test]
    fn a_few_steps_and_counts_that_began_again_say_nothing() {
        let mut fit = Fit::default();
        fit.take(&stretch(5.0, 5.0, 100.0));
        assert_eq!(fit.rates(), None);
        let load = |since, steps| RankLoad { since, steps, busy_seconds: 1.0, ..RankLoad::default() };
        assert_eq!(Stretch::between(&load(1, 5), &load(2, 9)), None);
        assert_eq!(Stretch::between(&load(1, 5), &load(1, 4)), None);
        assert_eq!(Stretch::between(&load(1, 5), &load(1, 9)).unwrap().counts[0], 4.0);
    }

    #[test]
    fn old_stretches_fade() {
        let mut fit = Fit::default();
        for _ in 0..50 {
            fit.take(&stretch(50.0, 50.0, 0.0));
        }
        fit.fade(1e-4);
        assert_eq!(fit.rates(), None, "the steps fade too");
        fit.take(&Stretch { counts: [100.0, 100.0, 0.0], busy: 2.0 });
        near(fit.rates().unwrap().step, 0.02);
    }
}
