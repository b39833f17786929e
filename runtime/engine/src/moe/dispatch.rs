//! Dispatch: tokens sorted by the experts that they go to. Pure arithmetic on the gate's choice.

use crate::backend::Choice;
use std::ops::Range;

/// Who goes where. A *send* is one token at one of its experts; sends are sorted by expert, then by token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// `[experts + 1]`: expert e gets sends `offsets[e]..offsets[e + 1]`.
    pub offsets: Vec<u32>,
    /// `[sends]`: the token of each send.
    pub tokens: Vec<u32>,
    /// `[tokens, per_token]`: the send that carries this token's j-th choice.
    pub sends: Vec<u32>,
}

impl Dispatch {
    /// Sorts by counting: linear in sends and experts.
    pub fn new(choice: &Choice, experts: usize) -> Dispatch {
        let mut offsets = vec![0; experts + 1];
        for &expert in &choice.experts {
            offsets[expert as usize + 1] += 1;
        }
        for e in 0..experts {
            offsets[e + 1] += offsets[e];
        }
        let mut next = offsets.clone();
        let mut tokens = vec![0; choice.experts.len()];
        let mut sends = vec![0; choice.experts.len()];
        for (at, &expert) in choice.experts.iter().enumerate() {
            let send = &mut next[expert as usize];
            tokens[*send as usize] = (at / choice.per_token) as u32;
            sends[at] = *send;
            *send += 1;
        }
        Dispatch { offsets, tokens, sends }
    }

    /// The sends of expert `expert`.
    pub fn sends_of(&self, expert: usize) -> Range<usize> {
        self.offsets[expert] as usize..self.offsets[expert + 1] as usize
    }

    /// The experts that get something, in order, each with its sends.
    pub fn used(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        (0..self.offsets.len() - 1).map(|e| (e, self.sends_of(e))).filter(|(_, sends)| !sends.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sends_are_sorted_by_expert_then_token() {
        let choice = Choice { experts: vec![2, 0, 0, 3, 2, 3], weights: vec![0.5; 6], per_token: 2 };
        let dispatch = Dispatch::new(&choice, 4);
        assert_eq!(dispatch.offsets, [0, 2, 2, 4, 6]);
        assert_eq!(dispatch.tokens, [0, 1, 0, 2, 1, 2]);
        assert_eq!(dispatch.sends, [2, 0, 1, 4, 3, 5]);
        assert_eq!(dispatch.used().collect::<Vec<_>>(), [(0, 0..2), (2, 2..4), (3, 4..6)]);
    }

    proptest! {
        #[test]
        fn every_choice_has_one_send_at_its_expert(
            picks in prop::collection::vec(0u32..7, 0..60).prop_map(|mut v| { v.truncate(v.len() / 3 * 3); v })
        ) {
            let choice = Choice { weights: vec![0.0; picks.len()], experts: picks, per_token: 3 };
            let dispatch = Dispatch::new(&choice, 7);
            let mut seen = vec![false; choice.experts.len()];
            for (at, &send) in dispatch.sends.iter().enumerate() {
                let expert = choice.experts[at] as usize;
                prop_assert!((dispatch.offsets[expert]..dispatch.offsets[expert + 1]).contains(&send));
                prop_assert_eq!(dispatch.tokens[send as usize] as usize, at / 3);
                prop_assert!(!std::mem::replace(&mut seen[send as usize], true));
            }
        }
    }
}
