//! Parameters of both ways to ask for tokens.

use super::schema::{boolean, integer, list, neutral, number, parameters, reference, string};
use crate::grammar::limits::{LONGEST_REGEX, LONGEST_TEXT, MOST_CHOICES as MOST_WORDS};
use crate::server::openai::replay::LONGEST_ID;
use crate::server::openai::sampling::MOST_BIASES;
use crate::server::openai::settings::{LAST_PRIORITY, LONGEST_SALT, MOST_CHOICES, MOST_TOKENS};
use crate::server::openai::stops::{MOST_STRINGS, MOST_TOKENS as MOST_STOP_TOKENS};
use crate::stop_strings::LONGEST;
use serde_json::{Value, json};

/// Everything but the prompt and what depends on its kind.
pub(super) fn settings() -> Value {
    let stop = json!({"type": "string", "minLength": 1, "maxLength": LONGEST});
    json!({
        "n": integer(1..=MOST_CHOICES as i64, "Choices for each prompt. The i-th, from 0, has `seed` + i. Default: 1."),
        "temperature": number(0.0..=2.0, 1.0, "0 always takes the most probable token."),
        "top_p": number(0.0..=1.0, 1.0, "Only the most probable tokens that have this probability together."),
        "top_k": integer(-1..=u32::MAX.into(), "Only so many of the most probable tokens; 0 and -1: all of them."),
        "min_p": number(0.0..=1.0, 0.0, "Only tokens that are at least so probable, compared with the most probable."),
        "repetition_penalty": number(0.01..=10.0, 1.0, "Divides the odds of tokens that prompt or answer hold."),
        "presence_penalty": number(-2.0..=2.0, 0.0, "Taken from the logit of a token that the answer holds."),
        "frequency_penalty": number(-2.0..=2.0, 0.0, "Taken from a token's logit for each time that the answer holds it."),
        "logit_bias": {
            "type": "object", "maxProperties": MOST_BIASES, "propertyNames": {"pattern": "^(0|[1-9][0-9]*)$"},
            "additionalProperties": {"type": ["number", "null"], "minimum": -100.0, "maximum": 100.0},
            "description": "Added to the logits of these token ids.",
        },
        "seed": integer(i64::MIN..=i64::MAX, "The same request with the same seed has the same answer."),
        "stop": {
            "anyOf": [stop, {"type": "array", "items": stop, "maxItems": MOST_STRINGS}],
            "description": format!("The answer ends before these; each {LONGEST} bytes at most. They are not looked for in tool calls."),
        },
        "stop_token_ids": {
            "type": "array", "items": token_id(), "maxItems": MOST_STOP_TOKENS,
            "description": "The answer ends at these tokens, too.",
        },
        "include_stop_str_in_output": boolean(false, "What ended the answer is part of it."),
        "ignore_eos": boolean(false, "The model's own end does not end the answer."),
        "skip_special_tokens": boolean(true, "Tokens that mark structure are not shown."),
        "stream": boolean(false, "The answer comes while it is generated."),
        "stream_options": reference("StreamOptions"),
        "response_format": reference("ResponseFormat"),
        "structured_outputs": reference("StructuredOutputs"),
        "guided_json": json_schema(),
        "guided_regex": regex(),
        "guided_choice": choice(),
        "guided_grammar": grammar(),
        "priority": integer(0..=LAST_PRIORITY, "0 goes first. Default: 0."),
        "cache_salt": {
            "type": "string", "minLength": 1, "maxLength": LONGEST_SALT,
            "description": format!("Cached prompts are shared only with requests of the same salt; {LONGEST_SALT} bytes at most."),
        },
        "coterie_replay": reference("Replay"),
        "user": string("Changes nothing."),
        "safety_identifier": string("Changes nothing."),
        "prompt_cache_key": string("Changes nothing."),
        "metadata": {
            "type": "object", "additionalProperties": {"type": ["string", "null"]}, "description": "Changes nothing.",
        },
        "service_tier": neutral(json!(["auto", "default"])),
        "store": neutral(json!([false])),
    })
}

/// A request that gives its answer two forms is refused.
pub(super) fn one_form(mut request: Value) -> Value {
    let given = |name: &str| match name {
        "response_format" => {
            let kind = json!({"type": {"enum": ["json_object", "json_schema"]}});
            json!({"type": "object", "required": ["type"], "properties": kind})
        }
        _ => json!({"not": {"type": "null"}}),
    };
    let pairs = FORMS.iter().enumerate().flat_map(|(at, one)| {
        FORMS[at + 1..].iter().map(move |other| {
            json!({"required": [one, other], "properties": {*one: given(one), *other: given(other)}})
        })
    });
    request["not"] = json!({"anyOf": pairs.collect::<Vec<_>>()});
    request
}

/// Parameters that give the answer a form.
const FORMS: [&str; 6] = [
    "response_format",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
];

/// What Coterie's front door sends, and nobody else need.
pub(super) fn replay() -> Value {
    let number = json!({"type": "integer", "minimum": 0, "maximum": u64::MAX});
    let id = json!({
        "type": "string", "minLength": 1, "maxLength": LONGEST_ID, "pattern": "^[A-Za-z0-9-]+$",
        "description": "What the answer is called.",
    });
    let begun = parameters(&["id", "created", "seed"], json!({"id": id, "created": number, "seed": number}));
    let choice = parameters(
        &[],
        json!({
            "tokens": list(token_id()),
            "cached": {"type": "integer", "minimum": 0, "description": "Tokens of the prompt that were in the cache."},
        }),
    );
    let choices = json!({"type": "array", "items": choice, "maxItems": MOST_CHOICES});
    let mut replay = parameters(&["begun", "choices"], json!({"begun": begun, "choices": choices}));
    replay["description"] = json!(
        "From Coterie's front door, where the rank that began an answer is gone: what it generated, by choices. The stream goes on behind it. Only with `stream`."
    );
    replay
}

pub(super) fn max_tokens(least: i64, description: &str) -> Value {
    integer(least..=MOST_TOKENS, description)
}

pub(super) fn token_id() -> Value {
    json!({"type": "integer", "minimum": 0, "description": "An id below the size of the model's vocabulary."})
}

pub(super) fn stream_options() -> Value {
    parameters(
        &[],
        json!({
            "include_usage": boolean(false, "One more chunk at the end counts the tokens."),
            "continuous_usage_stats": boolean(false, "Every chunk counts the tokens; only with `include_usage`."),
            "include_obfuscation": neutral(json!([false])),
        }),
    )
}

pub(super) fn response_format() -> Value {
    let of_kind = |kind: &str| parameters(&["type"], json!({"type": {"const": kind}}));
    let schema = parameters(
        &["name", "schema"],
        json!({
            "name": string("Changes nothing."),
            "description": string("Changes nothing."),
            "strict": {"type": "boolean", "description": "The schema is kept in any case."},
            "schema": {"type": "object", "description": "The JSON schema that the answer is to satisfy."},
        }),
    );
    let with_schema = parameters(
        &["type", "json_schema"],
        json!({"type": {"const": "json_schema"}, "json_schema": schema}),
    );
    json!({"anyOf": [of_kind("text"), of_kind("json_object"), with_schema]})
}

/// vLLM's; exactly one of them.
pub(super) fn structured_outputs() -> Value {
    let only = |name: &str, schema: Value| parameters(&[name], json!({name: schema}));
    json!({
        "anyOf": [
            only("json", json_schema()),
            only("regex", regex()),
            only("choice", choice()),
            only("grammar", grammar()),
            only("json_object", json!({"const": true})),
        ],
    })
}

fn json_schema() -> Value {
    let text = json!({"type": "string", "contentMediaType": "application/json"});
    json!({"anyOf": [{"type": "object"}, text], "description": "A JSON schema, or its text."})
}

fn regex() -> Value {
    json!({
        "type": "string", "maxLength": LONGEST_REGEX, "examples": ["[a-z]{1,8}"],
        "description": "A regular expression that all of the answer is to match.",
    })
}

fn grammar() -> Value {
    json!({
        "type": "string", "maxLength": LONGEST_TEXT, "examples": ["start: \"yes\" | \"no\""],
        "description": "A grammar as llguidance's Lark spells it.",
    })
}

fn choice() -> Value {
    json!({
        "type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": MOST_WORDS,
        "description": "The answer is one of these.",
    })
}
