//! Penalties and biases: changes to a row of logits that depend on the tokens so far.

use crate::request::{Request, Sampling};
use std::collections::HashMap;

/// The tokens that a request's penalties are about, counted as they come; empty where it has none.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Times that a token is in the answer; 0 for one that is in the prompt only.
    in_answer: Option<HashMap<u32, u32>>,
}

impl Seen {
    /// What is known before the answer begins, or goes on.
    pub fn of(request: &Request) -> Seen {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = request.sampling;
        let (repetition, other) =
            (repetition_penalty != 1.0, presence_penalty != 0.0 || frequency_penalty != 0.0);
        let prompt = || request.prompt.iter().filter(|_| repetition).map(|token| (*token, 0));
        let mut seen = Seen { in_answer: (repetition || other).then(|| prompt().collect()) };
        request.generated.iter().for_each(|token| seen.push(*token));
        seen
    }

    /// A token of the answer.
    pub fn push(&mut self, token: u32) {
        if let Some(counts) = &mut self.in_answer {
            *counts.entry(token).or_default() += 1;
        }
    }
}

impl Sampling {
    /// Does nothing change the logits?
    pub fn takes_logits_as_they_are(&self) -> bool {
        self.logit_bias.is_empty()
            && self.repetition_penalty == 1.0
            && self.presence_penalty == 0.0
            && self.frequency_penalty == 0.0
    }

    /// Changes `row`, `[vocabulary]` logits, by the biases and then by the penalties on `seen`.
    pub fn change(&self, row: &mut [f32], seen: &Seen) {
        for (token, bias) in &self.logit_bias {
            if let Some(logit) = row.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        for (token, times) in seen.in_answer.iter().flatten() {
            let Some(logit) = row.get_mut(*token as usize) else { continue };
            *logit *= if *logit > 0.0 { self.repetition_penalty.recip() } else { self.repetition_penalty };
            if *times > 0 {
                *logit -= self.presence_penalty + self.frequency_penalty * *times as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_sees_the_prompt_the_others_the_answer_only() {
        let sampling = Sampling {
            repetition_penalty: 2.0,
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            logit_bias: vec![(3, 10.0), (99, 1.0)],
            ..Sampling::greedy()
        };
        let request = Request { sampling: sampling.clone(), ..Request::new(vec![0, 1], 9) };
        let mut seen = Seen::of(&request);
        seen.push(1);
        seen.push(2);
        seen.push(2);
        let mut row = [4.0, -4.0, 4.0, 4.0];
        sampling.change(&mut row, &seen);
        assert_eq!(row, [2.0, -8.75, 1.0, 14.0]);
    }

    #[test]
    fn without_penalties_nothing_is_counted_or_changed() {
        let request = Request::new(vec![0, 1], 9);
        let mut seen = Seen::of(&request);
        seen.push(1);
        assert!(seen.in_answer.is_none() && request.sampling.takes_logits_as_they_are());
        let presence = Sampling { presence_penalty: 1.0, ..Sampling::greedy() };
        let mut seen = Seen::of(&Request { sampling: presence.clone(), ..request });
        seen.push(1);
        let mut row = [4.0, 4.0];
        presence.change(&mut row, &seen);
        assert_eq!(row, [4.0, 3.0], "the prompt's own tokens are not penalised");
    }
}
