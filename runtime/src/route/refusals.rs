//! What the front door itself has to say, in OpenAI's shape. By doctrine: 429 where a caller is at its own limit, 503
//! where we have nothing to give.

use super::lane::Refused;
use super::table::ModelKey;
use crate::server::{ApiError, MODEL_RETRY, ROOM_RETRY};
use axum::http::{Method, StatusCode};
use std::time::Duration;

impl ApiError {
    /// No path of the front door.
    pub fn not_here(method: &Method, path: &str) -> ApiError {
        let message = format!(
            "Unknown request URL: {method} {path}. Served are /v1/models, /v1/chat/completions and /v1/completions."
        );
        ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("unknown_url"), message)
    }

    /// Which models there are is not known yet.
    pub fn no_table() -> ApiError {
        unavailable(
            "starting",
            "The front door has just started and knows no models yet; send the request again.",
        )
    }

    /// There is no model of this name, or several, whose whole names these are.
    pub fn no_such_model(asked: &str, candidates: &[String]) -> ApiError {
        let (status, code, message) = if candidates.is_empty() {
            let message = format!("The model '{asked}' does not exist; /v1/models lists those that do.");
            (StatusCode::NOT_FOUND, "model_not_found", message)
        } else {
            let names = candidates.join("' and '");
            let message =
                format!("Several models are called '{asked}'; ask for one by its whole name: '{names}'.");
            (StatusCode::BAD_REQUEST, "model_ambiguous", message)
        };
        ApiError::new(status, "invalid_request_error", Some(code), message).about("model")
    }

    /// The request may not even wait.
    pub(super) fn not_taken(why: Refused, model: &ModelKey) -> ApiError {
        match why {
            Refused::Full => {
                let message =
                    format!("As many requests for {model} wait as may; send the request again later.");
                unavailable("queue_full", message).retry(ROOM_RETRY)
            }
            Refused::Gone => ApiError::deleted(model),
        }
    }

    /// Its ModelDeployment was deleted while the request waited.
    pub fn deleted(model: &ModelKey) -> ApiError {
        let message = format!("The model {model} was deleted.");
        ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"), message)
            .about("model")
    }

    /// No rank had room for so long.
    pub fn waited_too_long(model: &ModelKey, waited: Duration) -> ApiError {
        let message = format!(
            "No rank of {model} could take the request within {} s; send the request again later.",
            waited.as_secs()
        );
        unavailable("model_not_ready", message)
    }

    /// So many times a rank broke off.
    pub fn ranks_broke(times: u32, last: &str) -> ApiError {
        let message = format!(
            "{times} times a rank broke off while it answered; the last time: {last}. Send the request again."
        );
        unavailable("rank_lost", message)
    }

    /// A rank broke off whose answer cannot be continued.
    pub fn not_continued(why: &str) -> ApiError {
        let message = format!(
            "The rank that generated this answer was lost, and no other can go on from it: {why}. Send the request again."
        );
        unavailable("rank_lost", message)
    }

    /// A key is asked for, and none came.
    pub fn no_key() -> ApiError {
        unauthorized("No API key was sent; send one as 'Authorization: Bearer KEY'.")
    }

    /// The key is none of ours.
    pub fn wrong_key() -> ApiError {
        unauthorized("The API key is not valid.")
    }

    /// The caller has taken as much as its key allows; more after that time.
    pub fn caller_at_limit(limit: &str, after: Duration) -> ApiError {
        let message = format!("This API key allows {limit}; send the request again later.");
        let code = Some("rate_limit_exceeded");
        let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", code, message).retry(seconds)
    }

    /// A rank answered in a way that means nothing here.
    pub fn nonsense(what: &str) -> ApiError {
        let message = format!("A rank answered what makes no sense: {what}; send the request again.");
        ApiError::new(StatusCode::BAD_GATEWAY, "server_error", Some("bad_answer"), message)
    }
}

fn unauthorized(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid_request_error", Some("invalid_api_key"), message)
}

fn unavailable(code: &'static str, message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some(code), message).retry(MODEL_RETRY)
}
