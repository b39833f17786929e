//! `/v1/completions`.

use super::answers::letterhead;
use super::schema::{
    answer, boolean, count, integer, list, neutral, nullable, parameters, reference, together,
};
use super::settings::{max_tokens, one_form, settings, token_id};
use crate::server::openai::completions::{DEFAULT_TOKENS, MOST_LOGPROBS};
use crate::server::openai::settings::MOST_CHOICES;
use serde_json::{Value, json};

pub(super) fn request(model: &Value) -> Value {
    let text = json!({"type": "string"});
    let tokens = json!({"type": "array", "items": token_id(), "minItems": 1});
    let several = json!({
        "type": "array", "items": {"anyOf": [text, tokens]}, "minItems": 1, "maxItems": MOST_CHOICES,
    });
    let of_completions = json!({
        "model": model,
        "prompt": {
            "anyOf": [text, tokens, several], "description": "A text or tokens, or several of them.",
        },
        "max_tokens": max_tokens(
            0, &format!("Default: {DEFAULT_TOKENS}. With the prompt, the context at most. 0 only with `echo`.")
        ),
        "echo": boolean(false, "A choice begins with its prompt."),
        "logprobs": integer(0..=MOST_LOGPROBS, "Log probabilities of the tokens, and of so many others at each place."),
        "best_of": integer(1..=MOST_CHOICES as i64, "The same as `n`."),
        "suffix": neutral(json!([""])),
    });
    one_form(parameters(&["model", "prompt"], together(of_completions, settings())))
}

pub(super) fn completion() -> Value {
    let choice = answer(
        &[],
        json!({
            "index": count(),
            "text": {"type": "string"},
            "logprobs": nullable(reference("CompletionLogprobs")),
            "finish_reason": {"enum": ["stop", "length", null]},
        }),
    );
    let more = json!({"choices": list(choice), "usage": nullable(reference("Usage"))});
    letterhead("text_completion", &["usage"], more)
}
