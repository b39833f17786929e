//! What an answer must be, as something that follows its tokens: a grammar, a JSON schema. The engine asks before each
//! token which ones may come, and tells which one came. It is never asked to go back: a preempted request keeps its
//! tokens, and only computes them again. A request that goes on from another's tokens has led it past them.

use std::fmt::Debug;

/// Follows one answer. Called on the engine's thread between two steps of all requests: a call must take microseconds.
pub trait Constraint: Send + Debug {
    /// Allows in `mask`, which is empty, the tokens that may come next. Where the answer may end, these include the
    /// request's stop tokens. The error is a sentence for the client, and ends the request.
    fn allow(&mut self, mask: &mut TokenMask) -> Result<(), String>;

    /// `token` came. One that was not allowed is an error; a request that comes with tokens may come with any.
    fn accept(&mut self, token: u32) -> Result<(), String>;

    /// Another answer's follower, as far along as this one.
    fn fork(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Self {
        self.fork()
    }
}

/// A set of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenMask {
    /// Token t is bit `t % 32` of word `t / 32`.
    words: Vec<u32>,
}

impl TokenMask {
    /// Empties it, with room for tokens below `vocabulary`.
    pub fn reset(&mut self, vocabulary: usize) {
        self.words.clear();
        self.words.resize(vocabulary.div_ceil(32), 0);
    }

    /// Adds a token; one that the model does not have is left out.
    pub fn allow(&mut self, token: u32) {
        if let Some(word) = self.words.get_mut(token as usize / 32) {
            *word |= 1 << (token % 32);
        }
    }

    /// Adds the tokens whose bits are set in `words`; those past the vocabulary's last word are left out.
    pub fn allow_words(&mut self, words: &[u32]) {
        self.words.iter_mut().zip(words).for_each(|(mine, more)| *mine |= more);
    }

    /// Is the token in it?
    pub fn allows(&self, token: u32) -> bool {
        self.words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_holds_what_was_allowed_and_no_more() {
        let mut mask = TokenMask::default();
        mask.reset(40);
        mask.allow(0);
        mask.allow(33);
        mask.allow(9999);
        mask.allow_words(&[1 << 5, 0, u32::MAX]);
        let allowed: Vec<u32> = (0..100).filter(|token| mask.allows(*token)).collect();
        assert_eq!(allowed, [0, 5, 33]);
        mask.reset(40);
        assert!((0..100).all(|token| !mask.allows(token)));
    }
}
