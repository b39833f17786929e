//! `/v1/completions`: text or tokens in, what follows them out.

mod answer;
mod prompt;

use super::create::{Asked, Endpoint};
use super::error::ApiError;
use super::parameters::{Neutral, Parameters};
use super::settings::{MOST_CHOICES, MOST_TOKENS, Settings};
use crate::served_model::ServedModel;
use crate::telemetry::Operation;
use answer::{CompletionAnswer, Echo};
use prompt::{EncodedPrompt, Prompt};

/// `logprobs` at most.
pub(super) const MOST_LOGPROBS: i64 = 5;
/// `max_tokens` where it is not given.
pub(super) const DEFAULT_TOKENS: usize = 16;

/// `/v1/completions`.
pub(super) struct Completions;

/// A completion request that is valid in itself.
#[derive(Debug)]
struct CompletionRequest {
    prompts: Vec<Prompt>,
    echo: bool,
    max_tokens: Option<usize>,
    logprobs: Option<usize>,
    settings: Settings,
}

impl CompletionRequest {
    fn take(parameters: &mut Parameters, model: &ServedModel) -> Result<CompletionRequest, ApiError> {
        let prompts = prompt::take(parameters, model.engine.vocabulary())?;
        let settings = Settings::take(parameters, model)?;
        let echo = parameters.boolean("echo")?.unwrap_or(false);
        let least = if echo { 0 } else { 1 };
        let max_tokens = parameters.integer("max_tokens", least..=MOST_TOKENS)?.map(|tokens| tokens as usize);
        let logprobs = parameters.integer("logprobs", 0..=MOST_LOGPROBS)?.map(|top| top as usize);
        limit_choices(prompts.len(), settings.n)?;
        refuse_choosing(parameters, settings.n)?;
        parameters.only_neutral(&[Neutral { name: "suffix", is_neutral: |v| v == "" }])?;
        Ok(CompletionRequest { prompts, echo, max_tokens, logprobs, settings })
    }

    /// What the engine is to do for one of the prompts.
    fn engine_request(&self, prompt: &EncodedPrompt, context: usize) -> coterie_engine::Request {
        let tokens = prompt.encoded.tokens.clone();
        let rest = context.saturating_sub(tokens.len()).max(1);
        let max_tokens = self.max_tokens.unwrap_or(DEFAULT_TOKENS.min(rest));
        coterie_engine::Request {
            top_logprobs: self.logprobs,
            // Without a token to generate, only a prompt to score gives the engine something to do.
            prompt_logprobs: if max_tokens == 0 {
                self.logprobs.or(Some(0))
            } else {
                self.logprobs.filter(|_| self.echo)
            },
            ..coterie_engine::Request::new(tokens, max_tokens)
        }
    }
}

fn limit_choices(prompts: usize, n: usize) -> Result<(), ApiError> {
    let choices = prompts.saturating_mul(n);
    if choices <= MOST_CHOICES {
        return Ok(());
    }
    let message = format!(
        "'prompt' holds {prompts} prompts and 'n' is {n}: that makes {choices} choices, and an answer may have {MOST_CHOICES}."
    );
    Err(ApiError::invalid("prompt", message))
}

/// `best_of` generates more choices than are given back; here all are.
fn refuse_choosing(parameters: &mut Parameters, n: usize) -> Result<(), ApiError> {
    match parameters.integer("best_of", 1..=MOST_CHOICES as i64)? {
        Some(best_of) if best_of as usize != n => {
            let message = format!("'best_of' = {best_of} is not supported where 'n' is {n}; leave it out.");
            Err(ApiError::unsupported("best_of", message))
        }
        _ => Ok(()),
    }
}

impl Endpoint for Completions {
    type Answer = CompletionAnswer;
    const OPERATION: Operation = Operation::TextCompletion;
    const PROMPT: &str = "prompt";

    async fn understand(
        mut parameters: Parameters,
        model: &ServedModel,
        served_name: &str,
    ) -> Result<Asked<CompletionAnswer>, ApiError> {
        let mut request = CompletionRequest::take(&mut parameters, model)?;
        parameters.finish()?;

        let mut prompts = Vec::with_capacity(request.prompts.len());
        for prompt in std::mem::take(&mut request.prompts) {
            let encoded = prompt.encoded(model).await;
            prompts.push(encoded.map_err(|why| ApiError::not_encoded(why, Self::PROMPT))?);
        }
        let context = model.engine.context_length();
        let engine_requests: Vec<_> =
            prompts.iter().map(|prompt| request.engine_request(prompt, context)).collect();

        let Settings { n, streamed, seed, .. } = request.settings;
        let replay = request.settings.replay.take();
        let choices = prompts.len() * n;
        let echo = request.echo.then(|| Echo::new(prompts, n));
        let with_logprobs = request.logprobs.is_some();
        let answer = CompletionAnswer::new(served_name, model.text.clone(), with_logprobs, echo, choices);
        let wanted = request.settings.wanted(&engine_requests, Self::PROMPT, model)?;
        Ok(Asked { wanted, answer, tool_form: None, streamed, seed, replay })
    }
}
