//! One choice of an answer: its tokens as text, until it ends.

use super::{Part, Shown};
use crate::answer_text::AnswerText;
use crate::metrics::Outcome;
use crate::tokenizer::Tokenizer;
use coterie_engine::{Finish, TokenLogprobs};

/// One of the answers to one prompt.
pub(super) struct Choice {
    pub text: AnswerText,
    pub prompt_tokens: usize,
    /// None until the engine has begun.
    pub cached_tokens: Option<usize>,
    /// All that were generated, the one that ended it included.
    pub tokens: Vec<u32>,
    /// How many of them another rank had generated.
    pub replayed: usize,
    /// None until it has ended.
    pub outcome: Option<Outcome>,
}

impl Choice {
    pub fn new(text: AnswerText, prompt_tokens: usize) -> Choice {
        Choice { text, prompt_tokens, cached_tokens: None, tokens: Vec::new(), replayed: 0, outcome: None }
    }

    /// A token came, and the choice ended with it if there is a `finish`.
    pub fn token(
        &mut self,
        token: u32,
        logprobs: Option<TokenLogprobs>,
        finish: Option<Finish>,
        shown: &Shown,
        tokenizer: &Tokenizer,
    ) -> Vec<Part> {
        self.tokens.push(token);
        let mut pieces = Vec::new();
        // The stop token is structure, not text, whatever its spelling.
        if finish != Some(Finish::Stop) || shown.stops {
            pieces.push(self.text.push(&shown.bytes(token, tokenizer), logprobs));
        }
        if let Some(finish) = finish
            && !pieces.iter().any(|piece| piece.stopped)
        {
            pieces.push(self.text.finish(finish == Finish::Length));
        }
        let stopped = pieces.iter().any(|piece| piece.stopped);
        let visible = pieces.into_iter().filter(|piece| !piece.text.is_empty() || !piece.tokens.is_empty());
        let end = if stopped { Some(Finish::Stop) } else { finish };
        visible.map(Part::Text).chain(end.map(Part::End)).collect()
    }
}

/// What a choice came to that ended so.
pub(super) fn outcome(finish: Finish) -> Outcome {
    match finish {
        Finish::Stop => Outcome::Stop,
        Finish::Length => Outcome::Length,
    }
}
