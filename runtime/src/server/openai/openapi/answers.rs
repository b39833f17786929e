//! What answers have in common.

use super::schema::{answer, count, list, nullable, reference, string, together};
use serde_json::{Value, json};

/// What stands at the top of every object of an answer, and `more`.
pub(super) fn letterhead(kind: &str, optional: &[&str], more: Value) -> Value {
    let head = json!({
        "id": string("The same in every object of one answer."),
        "object": {"const": kind},
        "created": count(),
        "model": {"type": "string"},
        "system_fingerprint": string("The build that answered."),
    });
    answer(optional, together(head, more))
}

pub(super) fn usage() -> Value {
    answer(
        // Of models that mark their reasoning.
        &["completion_tokens_details"],
        json!({
            "prompt_tokens": count(),
            "completion_tokens": count(),
            "total_tokens": count(),
            "prompt_tokens_details": answer(&[], json!({"cached_tokens": count()})),
            "completion_tokens_details": answer(&[], json!({"reasoning_tokens": count()})),
        }),
    )
}

pub(super) fn chat_logprobs() -> Value {
    let entry = json!({
        "token": {"type": "string"}, "logprob": {"type": "number"},
        "bytes": list(json!({"type": "integer", "minimum": 0, "maximum": 255})),
    });
    let top = list(answer(&[], entry.clone()));
    let content = list(answer(&[], together(entry, json!({"top_logprobs": top}))));
    answer(&[], json!({"content": content, "refusal": {"type": "null"}}))
}

pub(super) fn completion_logprobs() -> Value {
    let of_token = json!({"type": "object", "additionalProperties": {"type": "number"}});
    answer(
        &[],
        json!({
            "tokens": list(json!({"type": "string"})),
            "token_logprobs": list(nullable(json!({"type": "number"}))),
            "top_logprobs": list(nullable(of_token)),
            "text_offset": list(count()),
        }),
    )
}

pub(super) fn model() -> Value {
    answer(
        &[],
        json!({
            "id": {"type": "string"}, "object": {"const": "model"}, "created": count(),
            "owned_by": {"const": "coterie"},
            "max_model_len": {"type": "integer", "description": "Tokens of prompt and answer together at most."},
        }),
    )
}

/// `/load`: fields as [`coterie_api::rank_load::RankLoad`] has them.
pub(super) fn load() -> Value {
    let is = |meaning: &str| json!({"type": "boolean", "description": meaning});
    let number = |meaning: &str| json!({"type": "number", "minimum": 0, "description": meaning});
    answer(
        &[],
        json!({
            "since": count(),
            "ready": is("New requests are taken."),
            "draining": is("It was asked to end."),
            "waiting": count(), "waitingTokens": count(), "prefillingTokens": count(), "running": count(),
            "maxRunning": count(),
            "kvUsage": number("Share of the KV cache that running requests hold."),
            "requests": count(), "promptTokens": count(), "computedTokens": count(), "generatedTokens": count(),
            "steps": count(),
            "busySeconds": number("Time that the steps took together."),
        }),
    )
}

pub(super) fn list_of_models() -> Value {
    answer(&[], json!({"object": {"const": "list"}, "data": list(reference("Model"))}))
}
