//! The way of a request for tokens: read, understood, generated, answered.

use super::answer::Answer;
use super::error::ApiError;
use super::parameters::Parameters;
use super::settings::Streamed;
use super::{body, model, take_model};
use crate::generation::{Generation, Wanted};
use crate::served_model::ServedModel;
use crate::server::record::Record;
use crate::server::{Front, stream};
use crate::telemetry::Operation;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;

/// What is particular about one path.
pub(super) trait Endpoint: 'static {
    /// The form of its answers.
    type Answer: Answer;
    /// What it does, for traces.
    const OPERATION: Operation;
    /// The parameter that holds the prompt.
    const PROMPT: &str;
    /// What `parameters` ask `model` for; `served_name` is the model's name.
    fn understand(
        parameters: Parameters,
        model: &ServedModel,
        served_name: &str,
    ) -> impl Future<Output = Result<Asked<Self::Answer>, ApiError>> + Send;
}

/// A request that is valid in itself.
pub(super) struct Asked<A> {
    pub wanted: Wanted,
    pub answer: A,
    /// The answer is to be sent while it is generated.
    pub streamed: Option<Streamed>,
}

/// Answers a request to `E`.
pub(super) async fn create<E: Endpoint>(
    State(front): State<Arc<Front>>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut record = Record::begin(&front, E::OPERATION, request.headers());
    match start::<E>(&front, request.into_body(), &mut record).await {
        Ok((generation, answer, streamed)) => stream::send(record.of(generation), answer, streamed).await,
        Err(why) => {
            record.refused(&why);
            Err(why)
        }
    }
}

async fn start<E: Endpoint>(
    front: &Front,
    body: Body,
    record: &mut Record,
) -> Result<(Generation, E::Answer, Option<Streamed>), ApiError> {
    let body = body::read(body).await?;
    let model = model(front)?;
    let mut parameters = Parameters::parse(&body)?;
    take_model(&mut parameters, front)?;
    let Asked { wanted, answer, streamed } = E::understand(parameters, model, &front.served_name).await?;
    record.asked(&wanted, answer.id());
    let crowded = if wanted.choices_per_prompt > 1 { "n" } else { E::PROMPT };
    let generation = Generation::start(model, &front.metrics, wanted, record.arrived())
        .await
        .map_err(|why| ApiError::not_submitted(&why, E::PROMPT, crowded))?;
    Ok((generation, answer, streamed))
}
