//! An answer before the engine has it. What another rank generated of it goes through the same steps as what will come
//! of the engine, so that it goes on as if it had never been interrupted.

use super::choice::{Choice, outcome};
use super::{Generation, Part, Shown, Wanted};
use crate::answer_text::AnswerText;
use crate::engine_thread::NotSubmitted;
use crate::metrics::Metrics;
use crate::served_model::{ServedModel, TextSide};
use coterie_engine::{NotTaken, Request};
use std::sync::Arc;
use std::time::Instant;

/// An answer that is not begun.
pub struct Draft {
    text: Arc<TextSide>,
    /// One for each choice.
    requests: Vec<Request>,
    choices: Vec<Choice>,
    choices_per_prompt: usize,
    shown: Shown,
}

impl Draft {
    /// Nothing of it is generated.
    pub fn new(text: Arc<TextSide>, wanted: Wanted) -> Draft {
        let choice = |request: &Request| {
            let text = AnswerText::new(wanted.stops.clone(), wanted.shown.stops, wanted.calls.as_ref());
            Choice::new(text, request.prompt.len())
        };
        Draft {
            text,
            choices: wanted.requests.iter().map(choice).collect(),
            requests: wanted.requests,
            choices_per_prompt: wanted.choices_per_prompt,
            shown: wanted.shown,
        }
    }

    /// How many choices it has.
    pub fn choices(&self) -> usize {
        self.choices.len()
    }

    /// Tokens of a choice's prompt.
    pub fn prompt_tokens(&self, choice: usize) -> usize {
        self.choices[choice].prompt_tokens
    }

    /// A choice was begun elsewhere, with so many tokens of its prompt in the cache there.
    pub fn was_begun(&mut self, choice: usize, cached_tokens: usize) {
        self.choices[choice].cached_tokens = Some(cached_tokens);
    }

    /// Takes a token that was generated of a choice elsewhere, and gives what came of it then.
    pub fn take(&mut self, choice: usize, token: u32) -> Result<Vec<Part>, NotTaken> {
        let Draft { text, requests, choices, shown, .. } = self;
        let (request, choice) = (&mut requests[choice], &mut choices[choice]);
        if choice.outcome.is_some() {
            return Err(NotTaken::Over);
        }
        let finish = request.take(token)?;
        choice.replayed += 1;
        let parts = choice.token(token, None, finish, shown, &text.tokenizer);
        if let Some(Part::End(finish)) = parts.last() {
            choice.outcome = Some(outcome(*finish));
        }
        Ok(parts)
    }

    /// Starts generating what is left of it; the engine takes all choices that have not ended, or nothing.
    pub async fn start(
        self,
        model: &ServedModel,
        metrics: &Arc<Metrics>,
        arrived: Instant,
    ) -> Result<Generation, NotSubmitted> {
        let Draft { text, requests, choices, choices_per_prompt, shown } = self;
        let mut running = Vec::with_capacity(choices.len());
        let mut left = Vec::with_capacity(choices.len());
        for (index, request) in requests.into_iter().enumerate() {
            if choices[index].outcome.is_none() {
                running.push(index);
                left.push(request);
            }
        }
        let tokens = model.engine.submit(left, arrived).await?;
        let metrics = metrics.clone();
        Ok(Generation { text, metrics, tokens, running, choices, choices_per_prompt, shown })
    }
}
