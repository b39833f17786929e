//! Speculative decoding: a sequence that decodes guesses its next tokens, and the model computes them together with the
//! one that is known. Each row's token is then chosen as if nothing had been guessed. Where it is the guessed one, the
//! row behind it is of this text, too; where it is not, the rows behind are forgotten. So no guess changes a token, and
//! a guess costs rows alone.

mod lookup;
mod pace;

use lookup::{LONGEST, Lookup};
use pace::Pace;

/// Guessed tokens that are computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DraftLimits {
    /// Does the model's draft module guess? Else it is looked up what was there before.
    pub module: bool,
    /// Of one sequence in a step at most.
    pub tokens: usize,
    /// Rows of a step that decoding sequences and their drafts may have together: with more sequences than that nothing is
    /// drafted.
    pub rows: usize,
    /// When a row pays for itself.
    pub worth: Worth,
}

/// The probability of coming true from which a guessed token is worth its row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worth {
    /// Of the first. In a mixture of experts it costs most: half of the step's weights are read for one token alone.
    pub first: f32,
    /// Of each behind it, not more.
    pub further: f32,
}

/// Kinds of guesses: lengths of matches, by powers of two.
const KINDS: usize = LONGEST.ilog2() as usize + 1;

/// What one sequence guesses.
#[derive(Debug)]
pub struct Speculation {
    source: Source,
    /// Of guesses behind short, longer and the longest matches: these are seldom wrong, those often. A module's are of
    /// one kind.
    paces: [Pace; KINDS],
    /// What kind the last guess is.
    kind: usize,
    /// What may follow the text as it was before the step: the draft, or one token to learn from.
    guess: Vec<u32>,
    /// Tokens of it that the step computes.
    drafted: usize,
}

#[derive(Debug)]
enum Source {
    Lookup(Lookup),
    /// What the draft module guesses behind the text, if it has been asked.
    Module(Option<u32>),
}

impl Speculation {
    /// Of a text that grows to `tokens` tokens, by lookup.
    pub fn by_lookup(tokens: usize) -> Speculation {
        Speculation::by(Source::Lookup(Lookup::new(tokens)))
    }

    /// By the draft module.
    pub fn by_module() -> Speculation {
        Speculation::by(Source::Module(None))
    }

    fn by(source: Source) -> Speculation {
        Speculation { source, paces: [Pace::new(); KINDS], kind: 0, guess: Vec::new(), drafted: 0 }
    }

    /// The draft module guesses `token` behind the text, or nothing any more.
    pub fn set_next(&mut self, token: Option<u32>) {
        if let Source::Module(next) = &mut self.source {
            *next = token;
        }
    }

    /// Guesses what follows `tokens`, and says how much of it is to be computed now: at most `most` tokens. One token is
    /// guessed even if none is computed: so it is noticed when guesses begin to come true.
    pub fn draft(&mut self, tokens: &[u32], most: usize, worth: Worth) -> usize {
        match &mut self.source {
            Source::Lookup(lookup) => {
                if let Some(found) = lookup.find(tokens) {
                    self.kind = found.length.ilog2() as usize;
                    self.drafted = self.paces[self.kind].length(worth, most);
                    found.continuation(tokens, self.drafted.max(1), &mut self.guess);
                }
            }
            Source::Module(next) => {
                self.guess.extend(next.take());
                self.drafted = self.paces[self.kind].length(worth, most).min(self.guess.len());
            }
        }
        self.drafted
    }

    /// What is to be computed now.
    pub fn drafted(&self) -> &[u32] {
        &self.guess[..self.drafted]
    }

    /// `came` came behind the text that was guessed about. Returns how many tokens were drafted.
    pub fn judge(&mut self, came: &[u32]) -> usize {
        let pairs = self.guess.iter().zip(came);
        let true_ones = pairs.clone().take_while(|(guess, came)| guess == came).count();
        self.paces[self.kind].judge(true_ones, true_ones < pairs.len());
        self.guess.clear();
        std::mem::take(&mut self.drafted)
    }
}
