//! `/v1/completions`: text or tokens in, what follows them out.

mod answer;
mod prompt;

use super::create::{Asked, Endpoint};
use super::error::ApiError;
use super::parameters::{Neutral, Parameters};
use super::settings::{MOST_TOKENS, Settings};
use crate::served_model::ServedModel;
use crate::telemetry::Operation;
use answer::{CompletionAnswer, Echo};
use prompt::Prompt;

/// `logprobs` at most.
const MOST_LOGPROBS: i64 = 5;
/// `max_tokens` where it is not given.
const DEFAULT_TOKENS: usize = 16;

/// `/v1/completions`.
pub(super) struct Completions;

/// A completion request that is valid in itself.
#[derive(Debug)]
struct CompletionRequest {
    prompt: Prompt,
    echo: bool,
    max_tokens: Option<usize>,
    logprobs: Option<usize>,
    settings: Settings,
}

/// Accepted where they change nothing.
const NEUTRAL: &[Neutral] = &[
    Neutral { name: "suffix", is_neutral: |v| v == "" },
    Neutral { name: "best_of", is_neutral: |v| v.as_f64() == Some(1.0) },
];

impl CompletionRequest {
    fn take(parameters: &mut Parameters) -> Result<CompletionRequest, ApiError> {
        let prompt = prompt::take(parameters)?;
        let settings = Settings::take(parameters)?;
        let echo = parameters.boolean("echo")?.unwrap_or(false);
        let least = if echo { 0 } else { 1 };
        let max_tokens = parameters.integer("max_tokens", least..=MOST_TOKENS)?.map(|tokens| tokens as usize);
        let logprobs = parameters.integer("logprobs", 0..=MOST_LOGPROBS)?.map(|top| top as usize);
        parameters.only_neutral(NEUTRAL)?;
        Ok(CompletionRequest { prompt, echo, max_tokens, logprobs, settings })
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
        let request = CompletionRequest::take(&mut parameters)?;
        parameters.finish()?;

        let prompt =
            request.prompt.encoded(model).await.map_err(|refused| ApiError::invalid("prompt", refused))?;
        let rest = model.engine.context_length().saturating_sub(prompt.encoded.tokens.len()).max(1);
        let max_tokens = request.max_tokens.unwrap_or(DEFAULT_TOKENS.min(rest));
        let engine_request = coterie_engine::Request {
            stop_tokens: model.engine.stop_tokens().to_vec(),
            top_logprobs: request.logprobs,
            // Without a token to generate, only a prompt to score gives the engine something to do.
            prompt_logprobs: if max_tokens == 0 {
                request.logprobs.or(Some(0))
            } else {
                request.logprobs.filter(|_| request.echo)
            },
            ..coterie_engine::Request::new(prompt.encoded.tokens.clone(), max_tokens)
        };

        let settings = request.settings;
        let wanted = settings.wanted(&[engine_request]);
        let echo = request.echo.then(|| Echo::new(vec![prompt], settings.n));
        let with_logprobs = request.logprobs.is_some();
        let choices = wanted.requests.len();
        let answer = CompletionAnswer::new(served_name, model.text.clone(), with_logprobs, echo, choices);
        Ok(Asked { wanted, answer, streamed: settings.streamed })
    }
}
