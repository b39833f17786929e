//! One answer as it comes, of one or several choices: the engine's tokens as text, each choice until a stop token, a stop
//! string or the last token allowed.

mod choice;
mod draft;

use crate::answer_text::Piece;
use crate::engine_thread::{Cut, Timing, TokenStreams};
use crate::metrics::{Metrics, Outcome};
use crate::served_model::TextSide;
use crate::tokenizer::Tokenizer;
use crate::tool_calls::CallReading;
use choice::{Choice, outcome};
use coterie_engine::{Event, Finish, NoToken, Request, TokenLogprobs};
pub use draft::Draft;
use std::sync::Arc;

/// What is generated together.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// One for each choice; choices of the same prompt follow each other.
    pub requests: Vec<Request>,
    /// How many choices have the same prompt.
    pub choices_per_prompt: usize,
    /// A choice ends before the first of these.
    pub stops: Vec<String>,
    /// The form in which tool calls may come; in them no stop string is looked for.
    pub calls: Option<CallReading>,
    /// What else is part of a choice's text.
    pub shown: Shown,
}

/// What is part of a choice's text beside its tokens of text.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// The string or the token that ended it.
    pub stops: bool,
    /// All tokens that mark structure.
    pub special_tokens: bool,
    /// These, even if they mark structure.
    pub marks: Vec<u32>,
}

impl Shown {
    /// The bytes that `token` adds to the text.
    fn bytes(&self, token: u32, tokenizer: &Tokenizer) -> Vec<u8> {
        let whole = self.special_tokens || self.marks.contains(&token);
        if whole { tokenizer.bytes(token) } else { tokenizer.shown_bytes(token) }
    }
}

/// An answer as it comes. Dropping it cancels the choices that have not ended.
///
/// Each choice is one request to the engine and counts as one in the metrics; one that ended elsewhere is neither.
pub struct Generation {
    text: Arc<TextSide>,
    metrics: Arc<Metrics>,
    tokens: TokenStreams,
    /// Which choice each of the streams is of.
    running: Vec<usize>,
    choices: Vec<Choice>,
    choices_per_prompt: usize,
    shown: Shown,
}

/// What comes of a choice, in this order: at most one `Prompt`, any number of `Text`, one `End`.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// The prompt's log probabilities, if they were asked for: one entry a prompt token, none for the first.
    Prompt(Vec<Option<TokenLogprobs>>),
    /// More of the choice; never empty in both text and tokens.
    Text(Piece),
    /// The choice is whole.
    End(Finish),
}

/// Why an answer broke off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A choice failed; the engine's sentence.
    Failed(String),
    /// A choice could not be kept to the form that its request asked for; the engine's sentence.
    Form(String),
    /// Everybody's requests ended.
    Cut(Cut),
}

impl Generation {
    /// What comes next: a choice, and one part of it, or its last text together with its end. None once all choices have
    /// ended.
    pub async fn next(&mut self) -> Result<Option<(usize, Vec<Part>)>, Broken> {
        loop {
            let (stream, event) = match self.tokens.next().await {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(None),
                Err(cut) => return Err(self.cut(cut)),
            };
            let index = self.running[stream];
            let choice = &mut self.choices[index];
            let parts = match event {
                Event::Started { cached_tokens, .. } => {
                    choice.cached_tokens.get_or_insert(cached_tokens);
                    Vec::new()
                }
                Event::Prompt { logprobs, finish, .. } => {
                    [Some(Part::Prompt(logprobs)), finish.map(Part::End)].into_iter().flatten().collect()
                }
                Event::Token { token, logprobs, finish, .. } => {
                    choice.token(token, logprobs, finish, &self.shown, &self.text.tokenizer)
                }
                Event::Failed { why, .. } => {
                    let form = matches!(why, NoToken::Constraint(_) | NoToken::NothingAllowed);
                    self.end(stream, if form { Outcome::FormLost } else { Outcome::Failed });
                    let why = why.to_string();
                    return Err(if form { Broken::Form(why) } else { Broken::Failed(why) });
                }
            };
            if let Some(Part::End(finish)) = parts.last() {
                self.end(stream, outcome(*finish));
            }
            if !parts.is_empty() {
                return Ok(Some((index, parts)));
            }
        }
    }

    /// All choices have ended.
    pub fn ended(&self) -> bool {
        self.choices.iter().all(|choice| choice.outcome.is_some())
    }

    /// How each choice ended; none where it has not.
    pub fn outcomes(&self) -> impl Iterator<Item = Option<Outcome>> {
        self.choices.iter().map(|choice| choice.outcome)
    }

    /// The times of each choice that has begun here.
    pub fn timings(&self) -> impl Iterator<Item = &Timing> {
        (0..self.running.len()).filter_map(|stream| self.tokens.timing(stream))
    }

    /// How many choices there are.
    pub fn choices(&self) -> usize {
        self.choices.len()
    }

    /// Tokens of the prompts, each prompt once.
    pub fn prompt_tokens(&self) -> usize {
        self.prompts().map(|choices| choices[0].prompt_tokens).sum()
    }

    /// Tokens of the prompts that were in the cache before this request, each prompt once: what the first of its
    /// choices computed, the others found there.
    pub fn cached_tokens(&self) -> usize {
        self.prompts()
            .filter_map(|choices| choices.iter().filter_map(|choice| choice.cached_tokens).min())
            .sum()
    }

    /// Tokens generated so far in all choices, the ones that ended them included.
    pub fn completion_tokens(&self) -> usize {
        self.choices.iter().map(|choice| choice.tokens.len()).sum()
    }

    /// Those of them that another rank generated.
    pub fn replayed_tokens(&self) -> usize {
        self.choices.iter().map(|choice| choice.replayed).sum()
    }

    /// All tokens of a choice so far, the one that ended it included.
    pub fn tokens(&self, choice: usize) -> &[u32] {
        &self.choices[choice].tokens
    }

    /// Tokens of a choice's prompt that were in the cache where it began; none before it has.
    pub fn cached_in(&self, choice: usize) -> Option<usize> {
        self.choices[choice].cached_tokens
    }

    /// No log probabilities of a choice's tokens wait for text: what it said follows from its tokens alone.
    pub fn is_settled(&self, choice: usize) -> bool {
        let choice = &self.choices[choice];
        choice.outcome.is_some() || choice.text.is_settled()
    }

    fn prompts(&self) -> impl Iterator<Item = &[Choice]> {
        self.choices.chunks(self.choices_per_prompt)
    }

    fn end(&mut self, stream: usize, outcome: Outcome) {
        let choice = &mut self.choices[self.running[stream]];
        choice.outcome = Some(outcome);
        if let (Outcome::Stop | Outcome::Length, Some(timing)) = (outcome, self.tokens.timing(stream)) {
            let generated = choice.tokens.len() - choice.replayed;
            self.metrics.observe_answer(timing, choice.prompt_tokens, generated);
        }
        // A stop string ends a choice that the engine would go on with.
        self.tokens.cancel(stream);
        self.metrics.count(outcome);
    }

    fn cut(&mut self, why: Cut) -> Broken {
        for choice in self.choices.iter_mut().filter(|choice| choice.outcome.is_none()) {
            choice.outcome = Some(Outcome::Failed);
            self.metrics.count(Outcome::Failed);
        }
        Broken::Cut(why)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        for _ in self.choices.iter().filter(|choice| choice.outcome.is_none()) {
            self.metrics.count(Outcome::Cancelled);
        }
    }
}
