//! `/v1/chat/completions`.

use super::answers::letterhead;
use super::schema::{
    answer, boolean, count, integer, list, neutral, nullable, parameters, reference, string, together,
    unsupported,
};
use super::settings::{max_tokens, one_form, settings};
use crate::server::openai::chat::MOST_LOGPROBS;
use crate::server::openai::chat::tools::{LONGEST_NAME, MOST as MOST_TOOLS};
use crate::server::openai::chat::variables::EFFORTS;
use serde_json::{Value, json};

pub(super) fn request(model: &Value) -> Value {
    let tokens = "Default: what the context leaves.";
    let old = "Deprecated by OpenAI; `tools` and `tool_choice` took its place.";
    let of_chat = json!({
        "model": model,
        "messages": {"type": "array", "items": reference("Message"), "minItems": 1},
        "max_tokens": max_tokens(1, tokens),
        "max_completion_tokens": max_tokens(1, "The newer name of `max_tokens`; not both."),
        "logprobs": boolean(false, "Log probabilities of the tokens."),
        "top_logprobs": integer(0..=MOST_LOGPROBS, "And of so many others at each place; only with `logprobs`."),
        "tools": {"type": "array", "items": reference("Tool"), "maxItems": MOST_TOOLS},
        "tool_choice": {
            "anyOf": [{"enum": ["none", "auto", "required"]}, named_tool()],
            "description": "Whether and which tools are called; `required` and a function need `tools`.",
        },
        "parallel_tool_calls": boolean(true, "More than one call may come."),
        "functions": {"type": "array", "maxItems": 0, "description": old},
        "function_call": {"enum": ["none", "auto"], "description": old},
        "chat_template_kwargs": {
            "type": "object", "description": "Variables for the chat template, as `enable_thinking`.",
        },
        "reasoning_effort": {"enum": EFFORTS, "description": "Told to the chat template."},
        "modalities": neutral(json!([["text"]])),
        "verbosity": neutral(json!(["medium"])),
        "audio": unsupported(),
        "prediction": unsupported(),
        "web_search_options": unsupported(),
    });
    one_form(parameters(&["model", "messages"], together(of_chat, settings())))
}

/// One form for each role.
pub(super) fn message() -> Value {
    let ignored = json!({
        "name": string("Who speaks; given to the chat template."),
        "annotations": nothing(),
        "function_call": unsupported(),
        "refusal": unsupported(),
        "audio": unsupported(),
        "parsed": anything(),
    });
    let content = || json!({"anyOf": [{"type": "string"}, reference("TextParts")]});
    let spoken = |role: &str, required: &[&str], more: Value| {
        let own = json!({"role": {"const": role}, "content": content()});
        parameters(required, together(together(own, ignored.clone()), more))
    };
    let plain = |role| spoken(role, &["role", "content"], json!({"tool_calls": nothing()}));
    let refusal = parameters(
        &["type", "refusal"],
        json!({"type": {"const": "refusal"}, "refusal": {"type": "string"}}),
    );
    let parts = list(json!({"anyOf": [text_part(), refusal]}));
    let reasoning = string("What the model thought; given to the chat template.");
    let of_assistant = json!({
        "content": {"anyOf": [{"type": "string"}, parts]},
        "reasoning_content": reasoning, "reasoning": reasoning,
    });
    let calls = json!({"type": "array", "items": call(), "minItems": 1});
    let none = json!({"type": "array", "maxItems": 0});
    let no_calls = together(of_assistant.clone(), json!({"tool_calls": none}));
    let called = together(of_assistant, json!({"tool_calls": calls}));
    let tool = json!({"tool_call_id": {"type": "string"}, "tool_calls": nothing()});
    json!({
        "anyOf": [
            plain("system"),
            plain("developer"),
            plain("user"),
            spoken("assistant", &["role", "content"], no_calls),
            spoken("assistant", &["role", "tool_calls"], called),
            spoken("tool", &["role", "content", "tool_call_id"], tool),
        ],
    })
}

pub(super) fn text_parts() -> Value {
    list(text_part())
}

fn text_part() -> Value {
    parameters(&["type", "text"], json!({"type": {"const": "text"}, "text": {"type": "string"}}))
}

/// A list or an object that clients send empty.
fn nothing() -> Value {
    json!({"anyOf": [{"type": "array", "maxItems": 0}, {"type": "object", "maxProperties": 0}]})
}

/// What OpenAI's client adds to what it received, and sends back.
fn anything() -> Value {
    json!({"description": "Changes nothing."})
}

/// A call of an earlier answer.
fn call() -> Value {
    let text = || json!({"type": "string"});
    let function = parameters(
        &["name", "arguments"],
        json!({"name": text(), "arguments": text(), "parsed_arguments": anything()}),
    );
    parameters(
        &["id", "type", "function"],
        json!({"id": text(), "type": {"const": "function"}, "function": function, "index": count()}),
    )
}

pub(super) fn tool() -> Value {
    let function = parameters(
        &["name"],
        json!({
            "name": function_name(),
            "description": string("Shown to the model."),
            "parameters": {"type": "object", "description": "The JSON schema of the arguments."},
            "strict": boolean(false, "The arguments are held to the schema."),
        }),
    );
    parameters(&["type", "function"], json!({"type": {"const": "function"}, "function": function}))
}

fn named_tool() -> Value {
    let function = parameters(&["name"], json!({"name": function_name()}));
    parameters(&["type", "function"], json!({"type": {"const": "function"}, "function": function}))
}

fn function_name() -> Value {
    json!({"type": "string", "pattern": format!("^[a-zA-Z0-9_-]{{1,{LONGEST_NAME}}}$")})
}

fn finish_reason() -> Value {
    json!({"enum": ["stop", "length", "tool_calls", null]})
}

pub(super) fn completion() -> Value {
    let text = || json!({"type": "string"});
    let function = answer(&[], json!({"name": text(), "arguments": text()}));
    let call = answer(&[], json!({"id": text(), "type": {"const": "function"}, "function": function}));
    let message = answer(
        &["tool_calls", "reasoning", "reasoning_content"],
        json!({
            "role": {"const": "assistant"}, "content": nullable(text()), "refusal": {"type": "null"},
            "tool_calls": list(call), "reasoning": nullable(text()), "reasoning_content": nullable(text()),
        }),
    );
    let choice = answer(
        &[],
        json!({
            "index": count(), "message": message, "logprobs": nullable(reference("ChatLogprobs")),
            "finish_reason": finish_reason(),
        }),
    );
    letterhead("chat.completion", &[], json!({"choices": list(choice), "usage": reference("Usage")}))
}

pub(super) fn chunk() -> Value {
    let text = || json!({"type": "string"});
    let function = answer(&["name"], json!({"name": text(), "arguments": text()}));
    let call = answer(
        &["id", "type"],
        json!({"index": count(), "id": text(), "type": {"const": "function"}, "function": function}),
    );
    let delta = answer(
        &["role", "content", "refusal", "tool_calls", "reasoning", "reasoning_content"],
        json!({
            "role": {"const": "assistant"}, "content": text(), "refusal": {"type": "null"},
            "tool_calls": list(call), "reasoning": text(), "reasoning_content": text(),
        }),
    );
    let choice = answer(
        &[],
        json!({
            "index": count(), "delta": delta, "logprobs": nullable(reference("ChatLogprobs")),
            "finish_reason": finish_reason(),
        }),
    );
    let more = json!({"choices": list(choice), "usage": nullable(reference("Usage"))});
    letterhead("chat.completion.chunk", &["usage"], more)
}
