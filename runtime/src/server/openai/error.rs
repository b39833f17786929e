//! Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

use crate::engine_thread::{Cut, NotSubmitted};
use crate::generation::Broken;
use crate::grammar::GrammarError;
use crate::served_model::NotEncoded;
use axum::Json;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use coterie_api::replay::PARAMETER;
use coterie_engine::Rejected;
use serde_json::{Value, json};

/// Seconds after which a client may try again when the queue is full.
const QUEUE_RETRY: &str = "1";
/// Seconds after which a client may try again when connections or bodies take all the room.
const ROOM_RETRY: &str = "2";
/// Seconds after which a client may try again when the model is not there.
const MODEL_RETRY: &str = "5";

/// A refusal or a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
    retry_after: Option<&'static str>,
    /// The connection ends with it, because the rest of the body is not read.
    closes: bool,
}

impl ApiError {
    fn new(
        status: StatusCode,
        kind: &'static str,
        code: Option<&'static str>,
        message: impl Into<String>,
    ) -> ApiError {
        let closes = matches!(
            status,
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT | StatusCode::UNSUPPORTED_MEDIA_TYPE
        );
        ApiError { status, kind, message: message.into(), param: None, code, retry_after: None, closes }
    }

    /// The request is wrong in `param`.
    pub fn invalid(param: &str, message: impl Into<String>) -> ApiError {
        ApiError::refused(None, message).about(param)
    }

    /// `param` is not given.
    pub fn missing(param: &str) -> ApiError {
        ApiError::refused(
            Some("missing_required_parameter"),
            format!("Missing required parameter: '{param}'."),
        )
        .about(param)
    }

    /// `param` is in OpenAI's API, but this build cannot do it.
    pub fn unsupported(param: &str, message: impl Into<String>) -> ApiError {
        ApiError::refused(Some("unsupported_parameter"), message).about(param)
    }

    /// `param` is not in OpenAI's API.
    pub fn unknown_parameter(param: &str) -> ApiError {
        ApiError::refused(Some("unknown_parameter"), format!("Unknown parameter: '{param}'.")).about(param)
    }

    pub fn malformed_json(error: &serde_json::Error) -> ApiError {
        let said = error.to_string();
        if let Some(place) = said.strip_prefix("number out of range") {
            return ApiError::refused(
                None,
                format!("The body of the request has a number beyond all limits{place}."),
            );
        }
        ApiError::refused(None, format!("The body of the request is not valid JSON: {said}."))
    }

    pub fn no_object(found: &str) -> ApiError {
        ApiError::refused(None, format!("The body of the request must be a JSON object, not {found}."))
    }

    pub fn too_large(limit: usize) -> ApiError {
        let message = format!("The body of the request is larger than {limit} bytes; send a shorter prompt.");
        let code = Some("request_too_large");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", code, message)
    }

    pub fn too_slow() -> ApiError {
        let message = "The body of the request did not arrive in time.";
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", Some("request_timeout"), message)
    }

    pub fn body_broke() -> ApiError {
        ApiError::refused(None, "The body of the request broke off.")
    }

    pub fn too_many_values(limit: usize) -> ApiError {
        let message =
            format!("The body of the request holds more than {limit} JSON values; send a shorter prompt.");
        ApiError::refused(Some("request_too_large"), message)
    }

    pub fn encoded_body() -> ApiError {
        let message = "The body of the request has a content-encoding; send it as it is.";
        let code = Some("unsupported_content_encoding");
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", code, message)
    }

    pub fn no_room_for_body() -> ApiError {
        ApiError::busy("The server holds as many large requests as it can")
    }

    pub fn too_many_connections() -> ApiError {
        ApiError::busy("The server has as many connections as it takes")
    }

    /// The process ends, and takes nothing new.
    pub fn ending() -> ApiError {
        let message = "The server finishes what runs and takes nothing new; send the request again.";
        let code = Some("shutting_down");
        let mut error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", code, message);
        error.closes = true;
        error.retry(MODEL_RETRY)
    }

    fn busy(what: &str) -> ApiError {
        let message = format!("{what}; try again in a moment.");
        let code = Some("server_busy");
        let mut error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", code, message);
        error.closes = true;
        error.retry(ROOM_RETRY)
    }

    pub fn unknown_path(method: &Method, path: &str) -> ApiError {
        let message = format!(
            "Unknown request URL: {method} {path}. Served are /v1/models, /v1/chat/completions and /v1/completions; /openapi.json describes them."
        );
        ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("unknown_url"), message)
    }

    pub fn wrong_method(method: &Method, path: &str) -> ApiError {
        let message = format!("{path} does not take {method}.");
        ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            Some("method_not_allowed"),
            message,
        )
    }

    pub fn unknown_model(name: &str, served: &str) -> ApiError {
        let message = format!("The model '{name}' does not exist; this server serves '{served}'.");
        ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"), message)
            .about("model")
    }

    pub fn not_ready(why: &str) -> ApiError {
        let message = format!("The model cannot be asked now: {why}.");
        let code = Some("model_not_ready");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", code, message).retry(MODEL_RETRY)
    }

    /// The engine did not take the request; its prompt came from `prompt_param`, and that it has so many choices from
    /// `crowded_param`.
    pub fn not_submitted(why: &NotSubmitted, prompt_param: &str, crowded_param: &str) -> ApiError {
        match why {
            NotSubmitted::Rejected(rule) => ApiError::rejected(rule, prompt_param),
            NotSubmitted::TooMany { requests, limit } => {
                let message = format!(
                    "{requests} choices were asked for, but only {limit} may wait here; ask for fewer."
                );
                ApiError::invalid(crowded_param, message)
            }
            NotSubmitted::TooManyTokens { tokens, limit } => {
                let message = format!(
                    "All choices have {tokens} tokens to begin with, but only {limit} may wait here; ask for fewer choices."
                );
                ApiError::invalid(crowded_param, message)
            }
            NotSubmitted::Cut(cut) => ApiError::cut(cut),
        }
    }

    /// The prompt that came in `param` did not become tokens.
    pub fn not_encoded(why: NotEncoded, param: &str) -> ApiError {
        match why {
            NotEncoded::Failed(message) => ApiError::not_ready(&message),
            NotEncoded::Refused(message) | NotEncoded::Exceeded(message) => ApiError::invalid(param, message),
            NotEncoded::TooLong(message) => {
                ApiError::refused(Some("context_length_exceeded"), message).about(param)
            }
        }
    }

    /// The engine would not take, or did not take, a request whose prompt came from `prompt_param`.
    pub fn rejected(rule: &Rejected, prompt_param: &str) -> ApiError {
        let message = rule.to_string();
        match rule {
            Rejected::TooLong { .. } => {
                ApiError::refused(Some("context_length_exceeded"), message).about(prompt_param)
            }
            Rejected::NothingToDo => ApiError::invalid("max_tokens", message),
            Rejected::Over { .. } => ApiError::invalid(PARAMETER, message),
            Rejected::EmptyPrompt | Rejected::UnknownToken { .. } => ApiError::invalid(prompt_param, message),
            Rejected::QueueFull { .. } | Rejected::TokensFull { .. } => {
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("queue_full"), message)
                    .retry(QUEUE_RETRY)
            }
        }
    }

    /// The form in `param` was not taken.
    pub fn not_constrained(param: &str, why: &GrammarError) -> ApiError {
        let message = format!("'{param}' was refused: {why}.");
        match why {
            GrammarError::Busy(_) => {
                let code = Some("grammar_queue_full");
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", code, message)
                    .about(param)
                    .retry(QUEUE_RETRY)
            }
            GrammarError::Unavailable(_) => ApiError::unsupported(param, message),
            _ => ApiError::invalid(param, message),
        }
    }

    /// The answer broke off.
    pub fn broken(why: &Broken) -> ApiError {
        match why {
            Broken::Failed(message) => ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "server_error",
                Some("request_failed"),
                message,
            ),
            Broken::Form(message) => ApiError::refused(Some("form_not_followed"), message),
            Broken::Cut(cut) => ApiError::cut(cut),
        }
    }

    fn cut(why: &Cut) -> ApiError {
        let (code, message) = match why {
            Cut::DrainDeadline => (
                "shutting_down",
                "The server shut down before the answer was finished; send the request again.",
            ),
            Cut::EngineDied(_) => {
                ("engine_died", "The engine stopped before the answer was finished; send the request again.")
            }
        };
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some(code), message).retry(MODEL_RETRY)
    }

    /// With one more sentence.
    pub fn with(mut self, sentence: &str) -> ApiError {
        self.message.push_str(sentence);
        self
    }

    fn refused(code: Option<&'static str>, message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message)
    }

    fn about(mut self, param: &str) -> ApiError {
        self.param = Some(param.to_owned());
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// One word for machines.
    pub fn name(&self) -> &'static str {
        self.code.unwrap_or(self.kind)
    }

    /// One sentence for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    fn retry(mut self, seconds: &'static str) -> ApiError {
        self.retry_after = Some(seconds);
        self
    }

    /// As it is sent, in a body or in a stream.
    pub fn json(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        if self.closes {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
