//! The OpenAI API.

mod answer;
mod body;
mod chat;
mod completions;
mod create;
mod error;
mod logprobs;
mod messages;
mod models;
mod openapi;
mod parameters;
mod replay;
mod response_format;
mod sampling;
mod settings;
mod stops;
mod token_ids;

use super::Front;
use super::health::not_ready;
use crate::served_model::ServedModel;
pub(super) use answer::{Answer, Usage};
use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{get, post};
pub(super) use body::{BodyRoom, discard};
use chat::Chat;
use completions::Completions;
use create::create;
pub(super) use error::ApiError;
use parameters::Parameters;
pub(super) use settings::UsageChunks;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// The paths of the API.
pub(super) fn routes() -> Router<Arc<Front>> {
    Router::new()
        .route("/openapi.json", get(openapi::published))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*model}", get(models::retrieve))
        .route("/v1/chat/completions", post(create::<Chat>))
        .route("/v1/completions", post(create::<Completions>))
}

pub(super) async fn unknown_path(method: Method, uri: Uri) -> ApiError {
    ApiError::unknown_path(&method, uri.path())
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::wrong_method(&method, uri.path())
}

/// The model, once it can be asked; during a drain it still can.
fn model(front: &Front) -> Result<&ServedModel, ApiError> {
    let why =
        || ApiError::not_ready(&not_ready(front).unwrap_or_else(|| "the model is not loaded".to_owned()));
    front.model.get().ok_or_else(why)
}

/// Takes `model` and refuses any name but the one that is served.
fn take_model(parameters: &mut Parameters, front: &Front) -> Result<(), ApiError> {
    match parameters.string("model")? {
        None => Err(ApiError::missing("model")),
        Some(name) if name == front.served_name => Ok(()),
        Some(name) => Err(ApiError::unknown_model(&name, &front.served_name)),
    }
}

/// A number that nobody can foresee: for seeds that a client did not choose, and for ids.
fn fresh_number() -> u64 {
    RandomState::new().hash_one(())
}
