//! One answer as it comes: the engine's tokens as text, until a stop token, a stop string or the last token allowed.

use crate::answer_text::{AnswerText, Piece};
use crate::engine_thread::{Cut, NotSubmitted, TokenStream};
use crate::metrics::{Metrics, Outcome};
use crate::served_model::ServedModel;
use coterie_engine::{Event, Finish, Request, TokenLogprobs};
use std::sync::Arc;
use std::time::Instant;

/// An answer as it comes. Dropping it before its end cancels the request.
pub struct Generation {
    model: ServedModel,
    metrics: Arc<Metrics>,
    tokens: TokenStream,
    text: AnswerText,
    prompt_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
    ended: bool,
}

/// What comes of a generation, in this order: at most one `Prompt`, any number of `Text`, one `End`.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// The prompt's log probabilities, if they were asked for: one entry a prompt token, none for the first.
    Prompt(Vec<Option<TokenLogprobs>>),
    /// More of the answer; never empty in both text and tokens.
    Text(Piece),
    /// The answer is whole.
    End(Finish),
}

/// Why an answer broke off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// This request failed; the engine's sentence.
    Failed(String),
    /// All of them ended.
    Cut(Cut),
}

impl Generation {
    /// Starts generating what follows `request.prompt`, shown until the first of `stops`.
    pub async fn start(
        model: &ServedModel,
        metrics: &Arc<Metrics>,
        request: Request,
        stops: Vec<String>,
        arrived: Instant,
    ) -> Result<Generation, NotSubmitted> {
        let prompt_tokens = request.prompt.len();
        let tokens = model.engine.submit(request, arrived).await?;
        Ok(Generation {
            model: model.clone(),
            metrics: metrics.clone(),
            tokens,
            text: AnswerText::new(stops),
            prompt_tokens,
            cached_tokens: 0,
            completion_tokens: 0,
            ended: false,
        })
    }

    /// The next parts of the answer: one, or the last text together with the end. Empty after the end.
    pub async fn next(&mut self) -> Result<Vec<Part>, Broken> {
        while !self.ended {
            let event = match self.tokens.next().await {
                Ok(event) => event,
                Err(cut) => return Err(self.broken(Broken::Cut(cut))),
            };
            let parts = match event {
                Event::Started { cached_tokens, .. } => {
                    self.cached_tokens = cached_tokens;
                    Vec::new()
                }
                Event::Failed { message, .. } => return Err(self.broken(Broken::Failed(message))),
                Event::Prompt { logprobs, finish, .. } => {
                    let mut parts = vec![Part::Prompt(logprobs)];
                    parts.extend(finish.map(|finish| self.end(finish)));
                    parts
                }
                Event::Token { token, logprobs, finish, .. } => self.token(token, logprobs, finish),
            };
            if !parts.is_empty() {
                return Ok(parts);
            }
        }
        Ok(Vec::new())
    }

    /// Tokens in the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Tokens of the prompt that were in the cache.
    pub fn cached_tokens(&self) -> usize {
        self.cached_tokens
    }

    /// Tokens generated so far, the one that ended the answer included.
    pub fn completion_tokens(&self) -> usize {
        self.completion_tokens
    }

    fn token(&mut self, token: u32, logprobs: Option<TokenLogprobs>, finish: Option<Finish>) -> Vec<Part> {
        self.completion_tokens += 1;
        let mut pieces = Vec::new();
        // The stop token is structure, not text, whatever its spelling.
        if finish != Some(Finish::Stop) {
            pieces.push(self.text.push(&self.model.text.tokenizer.shown_bytes(token), logprobs));
        }
        if finish.is_some() && !pieces.iter().any(|piece| piece.stopped) {
            pieces.push(self.text.finish());
        }
        let stopped = pieces.iter().any(|piece| piece.stopped);
        let shown = pieces.into_iter().filter(|piece| !piece.text.is_empty() || !piece.tokens.is_empty());
        let mut parts: Vec<Part> = shown.map(Part::Text).collect();
        if let Some(finish) = if stopped { Some(Finish::Stop) } else { finish } {
            parts.push(self.end(finish));
        }
        parts
    }

    fn end(&mut self, finish: Finish) -> Part {
        self.ended = true;
        self.metrics.count(match finish {
            Finish::Stop => Outcome::stop,
            Finish::Length => Outcome::length,
        });
        Part::End(finish)
    }

    fn broken(&mut self, why: Broken) -> Broken {
        self.ended = true;
        self.metrics.count(Outcome::failed);
        why
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.count(Outcome::cancelled);
        }
    }
}
