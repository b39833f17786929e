//! One answer's text: tokens in, text out, with each token's log probabilities at their place in the text.

use crate::content_stops::ContentStops;
use crate::detokenizer::Detokenizer;
use crate::stop_strings::{Released, StopStrings};
use crate::tool_calls::CallReading;
use coterie_engine::TokenLogprobs;
use std::collections::VecDeque;

/// The text of an answer while its tokens come.
#[derive(Debug)]
pub struct AnswerText {
    detokenizer: Detokenizer,
    stops: ContentStops,
    /// Tokens whose text is not out yet, with the byte at which it begins, and where log probabilities were asked for.
    waiting: VecDeque<(usize, Option<PlacedToken>)>,
    /// Bytes of text that tokens have completed.
    completed: usize,
    /// The same in characters.
    completed_chars: usize,
    /// Bytes of text that are out.
    out: usize,
}

/// A part of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// Text that follows what was out before.
    pub text: String,
    /// The tokens whose text begins in it; only where log probabilities were asked for.
    pub tokens: Vec<PlacedToken>,
    /// How many tokens' text begins in it, whatever was asked for.
    pub count: usize,
    /// A stop string was found: the answer ends here.
    pub stopped: bool,
}

/// A token and its place in the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedToken {
    /// Its text begins at this character of the answer.
    pub start: usize,
    /// The token and its log probabilities.
    pub logprobs: TokenLogprobs,
}

impl AnswerText {
    /// An empty answer that ends before the first of `stops`, or with it if they are to be `shown`. Tool calls may come
    /// in the form `calls`; in them no stop string is looked for.
    pub fn new(stops: Vec<String>, shown: bool, calls: Option<&CallReading>) -> Self {
        // Without stop strings there is nothing to tell calls from.
        let calls = calls.filter(|_| !stops.is_empty());
        AnswerText {
            detokenizer: Detokenizer::default(),
            stops: ContentStops::new(StopStrings::new(stops, shown), calls),
            waiting: VecDeque::new(),
            completed: 0,
            completed_chars: 0,
            out: 0,
        }
    }

    /// Adds a token of the given bytes (none, for a token that is not shown).
    pub fn push(&mut self, bytes: &[u8], logprobs: Option<TokenLogprobs>) -> Piece {
        let placed = logprobs.map(|logprobs| PlacedToken { start: self.completed_chars, logprobs });
        self.waiting.push_back((self.completed, placed));
        let text = self.detokenizer.push(bytes);
        self.completed += text.len();
        self.completed_chars += text.chars().count();
        let released = self.stops.push(&text);
        self.out += released.text.len();
        self.piece(released.text, self.out, released.stopped)
    }

    /// Nothing follows: gives out what was held back. The answer was `cut` if more would have followed.
    pub fn finish(&mut self, cut: bool) -> Piece {
        let tail = self.detokenizer.finish();
        let Released { mut text, mut stopped } = self.stops.push(&tail);
        if !stopped {
            let last = self.stops.finish(cut);
            text += &last.text;
            stopped = last.stopped;
        }
        self.out += text.len();
        let end = if stopped { self.out } else { usize::MAX };
        self.piece(text, end, stopped)
    }

    /// No log probabilities wait for the text that their tokens begin.
    pub fn is_settled(&self) -> bool {
        // Tokens of another rank come without, and before all others.
        self.waiting.back().is_none_or(|(_, placed)| placed.is_none())
    }

    /// `text` with the tokens that begin before `byte`.
    fn piece(&mut self, text: String, byte: usize, stopped: bool) -> Piece {
        let count = self.waiting.partition_point(|(start, _)| *start < byte);
        let tokens = self.waiting.drain(..count).filter_map(|(_, token)| token).collect();
        Piece { text, tokens, count, stopped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(token: u32) -> Option<TokenLogprobs> {
        Some(TokenLogprobs { token, logprob: -1.0, top: Vec::new() })
    }

    fn ids(piece: &Piece) -> Vec<u32> {
        piece.tokens.iter().map(|t| t.logprobs.token).collect()
    }

    #[test]
    fn a_token_comes_out_with_the_text_that_it_begins() {
        let mut answer = AnswerText::new(vec!["END".into()], false, None);
        let held = answer.push(&[0xc3], token(1));
        assert_eq!((held.text.as_str(), ids(&held)), ("", vec![]));
        let whole = answer.push(&[0xbc], token(2));
        assert_eq!((whole.text.as_str(), ids(&whole)), ("ü", vec![1, 2]));
        let held = answer.push(b" E", token(3));
        assert_eq!((held.text.as_str(), ids(&held), held.tokens[0].start), (" ", vec![3], 1));
        let stopped = answer.push(b"ND more", token(4));
        assert_eq!((stopped.text.as_str(), ids(&stopped), stopped.stopped), ("", vec![], true));
    }

    #[test]
    fn at_the_end_everything_held_comes_out() {
        let mut answer = AnswerText::new(vec!["END".into()], false, None);
        answer.push(b"x EN", token(1));
        answer.push(&[], token(2));
        let rest = answer.finish(false);
        assert_eq!((rest.text.as_str(), ids(&rest), rest.stopped), ("EN", vec![2], false));
    }
}
