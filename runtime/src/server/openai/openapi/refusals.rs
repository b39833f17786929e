//! What is refused, and how.

use super::schema::{answer, nullable, reference};
use serde_json::{Map, Value, json};

/// With which a request for tokens may be refused, or its answer break off.
pub(super) const OF_REQUESTS_FOR_TOKENS: &[u16] = &[400, 404, 405, 408, 413, 415, 429, 500, 503];

/// Responses in the shape of OpenAI's errors.
pub(super) fn refusals(statuses: &[u16]) -> Value {
    let refusal = |status: &u16| {
        let content = json!({"application/json": {"schema": reference("Error")}});
        let mut response = json!({"description": meaning(*status), "content": content});
        if matches!(status, 429 | 503) {
            let schema = json!({"type": "string", "pattern": "^[0-9]+$"});
            let description = "Seconds after which to try again.";
            response["headers"] = json!({"Retry-After": {"description": description, "schema": schema}});
        }
        (status.to_string(), response)
    };
    Value::Object(statuses.iter().map(refusal).collect::<Map<String, Value>>())
}

/// A refusal by a probe, in plain words; no other method than GET is taken either.
pub(super) fn text_refusal(status: u16, meaning: &str) -> Value {
    let mut responses = refusals(&[405]);
    let content = json!({"text/plain": {"schema": {"type": "string"}}});
    responses[status.to_string()] = json!({"description": meaning, "content": content});
    responses
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => {
            "A parameter is wrong, unknown or missing; `param` names it. Or the answer could not be kept to the form that was asked for."
        }
        404 => "Another model is served.",
        405 => "The path does not take this method.",
        408 => "The body did not come in time.",
        413 => "The body is too large.",
        415 => "The body is compressed.",
        429 => "As many requests wait as may.",
        500 => "The request failed, and it alone.",
        503 => "The model cannot be asked now.",
        _ => "A refusal.",
    }
}

pub(super) fn error() -> Value {
    let text = || json!({"type": "string"});
    let fields = json!({
        "message": text(), "type": text(), "param": nullable(text()), "code": nullable(text()),
    });
    answer(&[], json!({"error": answer(&[], fields)}))
}
