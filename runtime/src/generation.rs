//! One answer as it comes, of one or several choices: the engine's tokens as text, each choice until a stop token, a stop
//! string or the last token allowed.

use crate::answer_text::{AnswerText, Piece};
use crate::engine_thread::{Cut, NotSubmitted, Timing, TokenStreams};
use crate::metrics::{Metrics, Outcome};
use crate::served_model::{ServedModel, TextSide};
use crate::tokenizer::Tokenizer;
use crate::tool_calls::ToolFormat;
use coterie_engine::{Event, Finish, NoToken, Request, TokenLogprobs};
use std::sync::Arc;
use std::time::Instant;

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
    pub calls: Option<ToolFormat>,
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
/// Each choice is one request to the engine and counts as one in the metrics.
pub struct Generation {
    text: Arc<TextSide>,
    metrics: Arc<Metrics>,
    tokens: TokenStreams,
    choices: Vec<Choice>,
    choices_per_prompt: usize,
    shown: Shown,
}

/// One of the answers to one prompt.
struct Choice {
    text: AnswerText,
    prompt_tokens: usize,
    /// None until the engine has begun.
    cached_tokens: Option<usize>,
    completion_tokens: usize,
    /// None until it has ended.
    outcome: Option<Outcome>,
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
    /// Starts generating; the engine takes all of it or nothing.
    pub async fn start(
        model: &ServedModel,
        metrics: &Arc<Metrics>,
        wanted: Wanted,
        arrived: Instant,
    ) -> Result<Generation, NotSubmitted> {
        let choice = |request: &Request| Choice {
            text: AnswerText::new(wanted.stops.clone(), wanted.shown.stops, wanted.calls),
            prompt_tokens: request.prompt.len(),
            cached_tokens: None,
            completion_tokens: 0,
            outcome: None,
        };
        let choices = wanted.requests.iter().map(choice).collect();
        let tokens = model.engine.submit(wanted.requests, arrived).await?;
        Ok(Generation {
            text: model.text.clone(),
            metrics: metrics.clone(),
            tokens,
            choices,
            choices_per_prompt: wanted.choices_per_prompt,
            shown: wanted.shown,
        })
    }

    /// The next parts, each with the index of its choice: one, or a choice's last text together with its end. Empty
    /// once all choices have ended.
    pub async fn next(&mut self) -> Result<Vec<(usize, Part)>, Broken> {
        loop {
            let (index, event) = match self.tokens.next().await {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(Vec::new()),
                Err(cut) => return Err(self.cut(cut)),
            };
            let choice = &mut self.choices[index];
            let parts = match event {
                Event::Started { cached_tokens, .. } => {
                    choice.cached_tokens = Some(cached_tokens);
                    Vec::new()
                }
                Event::Prompt { logprobs, finish, .. } => {
                    [Some(Part::Prompt(logprobs)), finish.map(Part::End)].into_iter().flatten().collect()
                }
                Event::Token { token, logprobs, finish, .. } => {
                    // The stop token is structure, not text, whatever its spelling.
                    let text = finish != Some(Finish::Stop) || self.shown.stops;
                    let bytes = text.then(|| self.shown.bytes(token, &self.text.tokenizer));
                    choice.token(bytes.as_deref(), logprobs, finish)
                }
                Event::Failed { why, .. } => {
                    let form = matches!(why, NoToken::Constraint(_) | NoToken::NothingAllowed);
                    self.end(index, if form { Outcome::FormLost } else { Outcome::Failed });
                    let why = why.to_string();
                    return Err(if form { Broken::Form(why) } else { Broken::Failed(why) });
                }
            };
            if let Some(Part::End(finish)) = parts.last() {
                self.end(index, outcome(*finish));
            }
            if !parts.is_empty() {
                return Ok(parts.into_iter().map(|part| (index, part)).collect());
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

    /// The times of each choice that has begun.
    pub fn timings(&self) -> impl Iterator<Item = &Timing> {
        (0..self.choices.len()).filter_map(|index| self.tokens.timing(index))
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
        self.choices.iter().map(|choice| choice.completion_tokens).sum()
    }

    fn prompts(&self) -> impl Iterator<Item = &[Choice]> {
        self.choices.chunks(self.choices_per_prompt)
    }

    fn end(&mut self, index: usize, outcome: Outcome) {
        let choice = &mut self.choices[index];
        choice.outcome = Some(outcome);
        if let (Outcome::Stop | Outcome::Length, Some(timing)) = (outcome, self.tokens.timing(index)) {
            self.metrics.observe_answer(timing, choice.prompt_tokens, choice.completion_tokens);
        }
        // A stop string ends a choice that the engine would go on with.
        self.tokens.cancel(index);
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

impl Choice {
    /// A token came, with the bytes that it adds to the text, if it is part of that at all.
    fn token(
        &mut self,
        bytes: Option<&[u8]>,
        logprobs: Option<TokenLogprobs>,
        finish: Option<Finish>,
    ) -> Vec<Part> {
        self.completion_tokens += 1;
        let mut pieces = Vec::new();
        if let Some(bytes) = bytes {
            pieces.push(self.text.push(bytes, logprobs));
        }
        if let Some(finish) = finish
            && !pieces.iter().any(|piece| piece.stopped)
        {
            pieces.push(self.text.finish(finish == Finish::Length));
        }
        let stopped = pieces.iter().any(|piece| piece.stopped);
        let shown = pieces.into_iter().filter(|piece| !piece.text.is_empty() || !piece.tokens.is_empty());
        let end = if stopped { Some(Finish::Stop) } else { finish };
        shown.map(Part::Text).chain(end.map(Part::End)).collect()
    }
}

fn outcome(finish: Finish) -> Outcome {
    match finish {
        Finish::Stop => Outcome::Stop,
        Finish::Length => Outcome::Length,
    }
}
