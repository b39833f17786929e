//! Picks a rank for a request: the one from which its first token is expected soonest.
//!
//! What is expected is told by counts that the rank reported, by what was sent to it since, and by how fast it was:
//! seconds for each prompt token, for each step, and between two requests that leave a full batch.

use std::time::Duration;

/// A rank as it can be judged now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct View {
    /// Requests that it has, whoever sent them.
    pub requests: u64,
    /// Requests that one batch takes.
    pub max_running: u64,
    /// Prompt tokens that it has yet to compute.
    pub waiting_tokens: u64,
    /// Tokens of the prompt that it probably holds.
    pub cached_tokens: u64,
    /// How long ago it reported, beyond the time that is usual.
    pub overdue: Duration,
    /// How fast it was.
    pub pace: Pace,
}

/// How fast a rank was; none where that was not seen of late.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Seconds for each prompt token that it computes.
    pub prompt_token: Option<f64>,
    /// Seconds for a step that computes no prompt.
    pub step: Option<f64>,
    /// Seconds between two requests that got a place in a full batch.
    pub turn: Option<f64>,
}

/// Taken for a rank where no rank has shown a pace.
const USUAL: (f64, f64, f64) = (0.001, 0.02, 1.0);
/// Seconds that a rank's report may be wrong by, for each second that it is overdue: others send, too.
const DOUBT: f64 = 0.1;
/// What makes no difference, seconds. Ranks so close are taken in turn, so that two routers which see the same do not
/// both send to one rank.
const SAME: f64 = 0.002;

/// Seconds until the first token of a prompt of `prompt_tokens` tokens.
pub fn expected_wait(view: &View, prompt_tokens: u64) -> f64 {
    let (prompt_token, step, turn) = USUAL;
    let prompt_token = view.pace.prompt_token.unwrap_or(prompt_token);
    let step = view.pace.step.unwrap_or(step);
    let turn = view.pace.turn.unwrap_or(turn);

    let own = prompt_tokens.saturating_sub(view.cached_tokens);
    let computing = (view.waiting_tokens + own) as f64 * prompt_token;
    let ahead = (view.requests + 1).saturating_sub(view.max_running.max(1));
    let place = ahead as f64 * turn;
    // A step of a fuller batch takes longer, and the answer after the first token is part of what a client waits for.
    let crowd = step * (1.0 + view.requests as f64 / view.max_running.max(1) as f64);
    let overdue = view.overdue.as_secs_f64();
    (computing + place + crowd) * (1.0 + overdue) + DOUBT * overdue
}

/// The number of the rank to send to; `turn` goes on by one with every request.
pub fn choose(views: &[View], prompt_tokens: u64, turn: usize) -> Option<usize> {
    let fastest = fastest(views);
    let wait = |view: &View| expected_wait(&View { pace: view.pace.or(fastest), ..*view }, prompt_tokens);
    let waits: Vec<f64> = views.iter().map(wait).collect();
    let least = waits.iter().copied().fold(f64::INFINITY, f64::min);
    let same: Vec<usize> = (0..waits.len()).filter(|at| waits[*at] <= least + SAME).collect();
    (!same.is_empty()).then(|| same[turn % same.len()])
}

/// The least of each pace that any rank has shown. A rank that has not shown its own is taken for as fast: so it gets
/// requests, and shows it.
fn fastest(views: &[View]) -> Pace {
    let least =
        |pace: fn(&Pace) -> Option<f64>| views.iter().filter_map(|view| pace(&view.pace)).reduce(f64::min);
    Pace {
        prompt_token: least(|pace| pace.prompt_token),
        step: least(|pace| pace.step),
        turn: least(|pace| pace.turn),
    }
}

impl Pace {
    /// With `other` where nothing is known.
    fn or(self, other: Pace) -> Pace {
        Pace {
            prompt_token: self.prompt_token.or(other.prompt_token),
            step: self.step.or(other.step),
            turn: self.turn.or(other.turn),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDLE: View = View {
        requests: 0,
        max_running: 16,
        waiting_tokens: 0,
        cached_tokens: 0,
        overdue: Duration::ZERO,
        pace: Pace { prompt_token: Some(0.001), step: Some(0.02), turn: Some(0.5) },
    };

    #[test]
    fn the_rank_with_less_to_do_is_chosen() {
        let busy = View { requests: 9, ..IDLE };
        let prefilling = View { waiting_tokens: 3000, ..IDLE };
        let full = View { requests: 16, ..IDLE };
        for other in [busy, prefilling, full] {
            assert_eq!(choose(&[other, IDLE], 100, 0), Some(1), "{other:?}");
            assert_eq!(choose(&[IDLE, other], 100, 0), Some(0), "{other:?}");
        }
        assert_eq!(choose(&[], 100, 0), None);
    }

    #[test]
    fn a_cached_beginning_is_worth_the_tokens_it_saves() {
        let knows = View { cached_tokens: 2000, requests: 4, ..IDLE };
        assert_eq!(choose(&[IDLE, knows], 2100, 0), Some(1));
        let knows_and_is_full = View { requests: 24, ..knows };
        assert_eq!(choose(&[IDLE, knows_and_is_full], 2100, 0), Some(0), "a place is waited for longer");
    }

    #[test]
    fn a_slow_rank_and_one_that_is_silent_are_left_behind() {
        let slow = View { pace: Pace { prompt_token: Some(0.004), ..IDLE.pace }, ..IDLE };
        let silent = View { overdue: Duration::from_secs(2), ..IDLE };
        assert_eq!(choose(&[slow, IDLE], 1000, 0), Some(1));
        assert_eq!(choose(&[silent, IDLE], 1000, 0), Some(1));
        let far_behind = View { waiting_tokens: 20_000, ..IDLE };
        assert_eq!(choose(&[silent, far_behind], 1000, 0), Some(0), "doubt is weighed, not final");
    }

    #[test]
    fn a_rank_that_has_not_shown_its_pace_is_tried() {
        let unknown = View { pace: Pace::default(), ..IDLE };
        let busy = View { requests: 3, ..IDLE };
        assert_eq!(choose(&[busy, unknown], 1000, 0), Some(1));
        let fast = Pace { prompt_token: Some(1e-6), step: Some(1e-3), turn: Some(0.1) };
        let chosen: Vec<_> =
            (0..2).map(|turn| choose(&[View { pace: fast, ..IDLE }, unknown], 1000, turn)).collect();
        assert_eq!(chosen, [Some(0), Some(1)], "it is taken for as fast");
    }

    #[test]
    fn equals_take_turns() {
        let chosen: Vec<_> = (0..4).map(|turn| choose(&[IDLE, IDLE], 10, turn).unwrap()).collect();
        assert_eq!(chosen, [0, 1, 0, 1]);
    }

    proptest! {
        #[test]
        fn more_work_never_makes_the_wait_shorter(requests in 0u64..100, tokens in 0u64..100_000, cached in 0u64..5000, prompt in 0u64..100_000) {
            let view = View { requests, waiting_tokens: tokens, cached_tokens: cached, ..IDLE };
            let wait = expected_wait(&view, prompt);
            prop_assert!(wait.is_finite() && wait > 0.0);
            for more in [View { requests: requests + 1, ..view }, View { waiting_tokens: tokens + 1, ..view }, View { overdue: Duration::from_secs(1), ..view }] {
                prop_assert!(expected_wait(&more, prompt) >= wait);
            }
            let knows_more = View { cached_tokens: cached + 1, ..view };
            prop_assert!(expected_wait(&knows_more, prompt) <= wait);
        }
    }
}
