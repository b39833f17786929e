//! Follows one answer through its grammar.

use super::GrammarError;
use coterie_engine::{Constraint, TokenMask};
use llguidance::Matcher;
use std::fmt;

/// Longer explanations of llguidance are cut, bytes.
const LONGEST_SENTENCE: usize = 600;

/// llguidance's matcher, which catches its own panics and never recovers from an error.
pub(super) struct Follower {
    matcher: Matcher,
}

impl Follower {
    /// At the beginning of an answer. Refuses what would fail at the first token; the matcher keeps what it found.
    pub fn begin(mut matcher: Matcher) -> Result<Follower, GrammarError> {
        match matcher.compute_mask_or_eos() {
            Ok(tokens) if tokens.is_zero() => Err(GrammarError::AllowsNothing),
            Ok(_) => Ok(Follower { matcher }),
            Err(error) if error.to_string().contains("NoExtension") => Err(GrammarError::AllowsNothing),
            Err(_) => Err(GrammarError::TooComplex),
        }
    }
}

impl Constraint for Follower {
    fn allow(&mut self, mask: &mut TokenMask) -> Result<(), String> {
        let tokens = self.matcher.compute_mask_or_eos().map_err(|error| gave_up(&error.to_string()))?;
        mask.allow_words(tokens.as_slice());
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), String> {
        self.matcher.consume_token(token).map_err(|error| gave_up(&error.to_string()))
    }

    fn fork(&self) -> Box<dyn Constraint> {
        // Deep: a plain clone would share the lexer, and with it a lock and a limit, with the other answer.
        Box::new(Follower { matcher: self.matcher.deep_clone() })
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("state", &self.matcher.stop_reason()).finish()
    }
}

fn gave_up(why: &str) -> String {
    format!("the answer could not be kept to its form: {}; make the schema or grammar smaller", sentence(why))
}

/// What llguidance says, without what is only for its authors.
pub(super) fn sentence(words: &str) -> String {
    if words.starts_with("panic:") {
        return "the grammar compiler does not support something in it".to_owned();
    }
    let mut words = words.split("\n<").next().unwrap_or_default().trim_end().to_owned();
    if words.len() > LONGEST_SENTENCE {
        words.truncate(words.floor_char_boundary(LONGEST_SENTENCE));
        words.push('…');
    }
    words
}
