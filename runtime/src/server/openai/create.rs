//! The way of a request for tokens: read, understood, generated, answered.

use super::answer::Answer;
use super::error::ApiError;
use super::parameters::Parameters;
use super::response_format::{self, Form};
use super::settings::Streamed;
use super::{body, model, replay, take_model};
use crate::generation::{Draft, Generation, Wanted};
use crate::served_model::ServedModel;
use crate::server::Front;
use crate::server::record::Record;
use crate::server::stream::{self, Way};
use crate::telemetry::Operation;
use axum::extract::{Request, State};
use axum::response::Response;
use coterie_api::replay::{JOURNAL, Journal};
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
    /// The form that its tools give the answer.
    pub tool_form: Option<Form>,
    /// The answer is to be sent while it is generated.
    pub streamed: Option<Streamed>,
    /// The client's, or one that was drawn.
    pub seed: u64,
    /// What another rank generated of the answer.
    pub replay: Option<Journal>,
}

/// Answers a request to `E`.
pub(super) async fn create<E: Endpoint>(
    State(front): State<Arc<Front>>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut record = Record::begin(&front, E::OPERATION, request.headers());
    match start::<E>(&front, request, &mut record).await {
        Ok((generation, answer, way)) => stream::send(record.of(generation), answer, way).await,
        Err(why) => {
            record.refused(&why);
            Err(why)
        }
    }
}

async fn start<E: Endpoint>(
    front: &Front,
    request: Request,
    record: &mut Record,
) -> Result<(Generation, E::Answer, Way), ApiError> {
    let journal = request.headers().get(JOURNAL).is_some_and(|version| version == "1");
    let body = body::read(request, front).await?;
    let model = model(front)?;
    let mut parameters = Parameters::parse(&body)?;
    take_model(&mut parameters, front)?;
    let form = response_format::take(&mut parameters)?;
    let Asked { mut wanted, mut answer, tool_form, streamed, seed, replay } =
        E::understand(parameters, model, &front.served_name).await?;
    if let Some(form) = one_form(form, tool_form)? {
        constrain(&mut wanted, form, model).await?;
    }
    if let Some(journal) = &replay {
        answer.letterhead().go_on(&journal.begun);
    }
    record.asked(&wanted, answer.letterhead().id());
    let crowded = if wanted.choices_per_prompt > 1 { "n" } else { E::PROMPT };
    let mut draft = Draft::new(model.text.clone(), wanted);
    let goes_on = replay.is_some();
    if let Some(journal) = replay {
        (draft, answer) = replay::follow(draft, answer, journal.choices, model).await?;
    }
    let generation = draft
        .start(model, &front.metrics, record.arrived())
        .await
        .map_err(|why| ApiError::not_submitted(&why, E::PROMPT, crowded))?;
    let begun = answer.letterhead().begun(seed);
    let way = match streamed {
        None => Way::Whole,
        Some(streamed) => Way::Streamed { usage: streamed.usage, goes_on, journal: journal.then_some(begun) },
    };
    Ok((generation, answer, way))
}

/// An answer cannot have two forms.
fn one_form(asked: Option<Form>, tool_form: Option<Form>) -> Result<Option<Form>, ApiError> {
    match (asked, tool_form) {
        (Some(Form { param, .. }), Some(_)) => {
            let message = format!("'{param}' cannot go with tools that are strict or must be called.");
            Err(ApiError::invalid(param, message))
        }
        (asked, tool_form) => Ok(asked.or(tool_form)),
    }
}

/// Gives each choice its own constraint.
async fn constrain(wanted: &mut Wanted, form: Form, model: &ServedModel) -> Result<(), ApiError> {
    let Form { param, format } = form;
    let ends = |token: &u32| model.engine.stop_tokens().contains(token);
    if wanted.requests.iter().any(|request| !request.stop_tokens.iter().any(ends)) {
        let message = format!("'{param}' needs the token that ends the answer; leave 'ignore_eos' out.");
        return Err(ApiError::invalid(param, message));
    }
    let constraint = model.grammars.compile_aside(format).await;
    let constraint = constraint.map_err(|why| ApiError::not_constrained(param, &why))?;
    for request in &mut wanted.requests {
        request.constraint = Some(constraint.clone());
    }
    Ok(())
}
