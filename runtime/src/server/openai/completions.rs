//! `/v1/completions`: text or tokens in, what follows them out.

mod answer;
mod prompt;

use super::error::ApiError;
use super::parameters::{Neutral, Parameters};
use super::settings::{MOST_TOKENS, Settings, Streamed};
use super::{body, model, take_model};
use crate::generation::Generation;
use crate::metrics::Outcome;
use crate::server::{Front, stream};
use answer::{CompletionAnswer, Echo};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use prompt::Prompt;
use std::sync::Arc;
use std::time::Instant;

/// `logprobs` at most.
const MOST_LOGPROBS: i64 = 5;
/// `max_tokens` where it is not given.
const DEFAULT_TOKENS: usize = 16;

pub(in crate::server) async fn create(
    State(front): State<Arc<Front>>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = start(&front, request.into_body(), Instant::now()).await;
    let (generation, answer, way) = started.inspect_err(|_| front.metrics.count(Outcome::rejected))?;
    stream::send(generation, answer, way).await
}

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

async fn start(
    front: &Front,
    body: Body,
    arrived: Instant,
) -> Result<(Generation, CompletionAnswer, Option<Streamed>), ApiError> {
    let body = body::read(body, front).await?;
    let model = model(front)?;
    let mut parameters = Parameters::parse(&body)?;
    take_model(&mut parameters, front)?;
    let request = CompletionRequest::take(&mut parameters)?;
    parameters.finish()?;

    let prompt = request.prompt.encoded(model).await.map_err(|why| ApiError::not_encoded(why, "prompt"))?;
    let rest = model.engine.context_length().saturating_sub(prompt.encoded.tokens.len()).max(1);
    let max_tokens = request.max_tokens.unwrap_or(DEFAULT_TOKENS.min(rest));
    let engine_request = coterie_engine::Request {
        sampling: request.settings.sampling,
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
    let generation =
        Generation::start(model, &front.metrics, engine_request, request.settings.stops, arrived)
            .await
            .map_err(|why| ApiError::not_submitted(&why, "prompt"))?;
    let echo = request.echo.then_some(Echo { prompt });
    let answer =
        CompletionAnswer::new(&front.served_name, model.text.clone(), request.logprobs.is_some(), echo);
    Ok((generation, answer, request.settings.streamed))
}
