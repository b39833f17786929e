//! Requests whose streams differ in all that an answer's form depends on.

use crate::model::REASONING_TEMPLATE;
use crate::server::user;
use serde_json::{Value, json};

pub struct Case {
    pub name: &'static str,
    pub path: &'static str,
    pub template: Option<&'static str>,
    pub choices: usize,
    pub body: Value,
}

const CALLS: &str = "say:I look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>\
    \n<tool_call>\n{\"arguments\": {\"a\": [1, 2]}, \"name\": \"sum\"}\n</tool_call>";

impl Case {
    pub fn chat(name: &'static str, body: Value) -> Case {
        Case { name, path: "/v1/chat/completions", template: None, choices: 1, body }
    }
}

/// A chat of one message, streamed, whose usage is counted.
fn chat(name: &'static str, text: &str, more: Value) -> Case {
    let mut body = user(text, more);
    let choices = body["n"].as_u64().unwrap_or(1) as usize;
    add(&mut body, json!({"stream": true, "stream_options": {"include_usage": true}}));
    Case { choices, ..Case::chat(name, body) }
}

fn completion(name: &'static str, choices: usize, mut body: Value) -> Case {
    add(&mut body, json!({"stream": true, "stream_options": {"include_usage": true}}));
    Case { name, path: "/v1/completions", template: None, choices, body }
}

/// Where it is not there yet.
fn add(body: &mut Value, more: Value) {
    for (name, value) in more.as_object().unwrap() {
        if body.get(name).is_none() {
            body[name] = value.clone();
        }
    }
}

fn tools(more: Value) -> Value {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let weather = json!({"name": "weather", "parameters": parameters});
    let mut body = more;
    body["tools"] =
        json!([{"type": "function", "function": weather}, {"type": "function", "function": {"name": "sum"}}]);
    body
}

fn schema() -> Value {
    let schema = json!({"type": "object", "required": ["city", "degrees"], "additionalProperties": false,
        "properties": {"city": {"enum": ["Oslo", "Rome"]}, "degrees": {"type": "integer"}}});
    json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}})
}

pub fn cases() -> Vec<Case> {
    let said = r#"say:{"city": "Rome", "degrees": 21}"#;
    let reasons = |name, text, more| Case { template: Some(REASONING_TEMPLATE), ..chat(name, text, more) };
    let thinks = "say:<think>\nWhy, ü? <thin\n</think>\n\nBecause <t.";
    vec![
        chat("characters of several tokens", "say:Köln 🦀 schön", json!({})),
        chat("a character that is cut off", "say:Köln 🦀", json!({"max_tokens": 7})),
        chat("its last token", "say:abcdef", json!({"max_tokens": 4})),
        chat("no usage", "say:abc", json!({"stream_options": {}})),
        chat(
            "usage in every chunk",
            "say:Köln 🦀 x",
            json!({
            "stream_options": {"include_usage": true, "continuous_usage_stats": true}}),
        ),
        chat("stop strings", "say:one STO one STOP two", json!({"stop": ["STOP", "one X"]})),
        chat(
            "a stop string that is shown",
            "say:one STO STOP two",
            json!({
            "stop": "STOP", "include_stop_str_in_output": true}),
        ),
        chat(
            "a stop token",
            "say:one, two",
            json!({"stop_token_ids": [44], "include_stop_str_in_output": true}),
        ),
        chat("structure that is shown", "say:abc", json!({"skip_special_tokens": false})),
        chat("log probabilities", "say:Köln 🦀 x", json!({"logprobs": true, "top_logprobs": 2})),
        chat(
            "log probabilities that wait",
            "say:a STO b 🦀STOP c",
            json!({
            "logprobs": true, "top_logprobs": 1, "stop": ["STOP", "b 🦀X"]}),
        ),
        chat(
            "penalties and a drawn seed",
            "say:I am # and #",
            json!({
            "presence_penalty": 0.5, "repetition_penalty": 1.1, "logit_bias": {"65": 2}}),
        ),
        chat("tool calls", CALLS, tools(json!({}))),
        chat("one tool call of two", CALLS, tools(json!({"parallel_tool_calls": false}))),
        chat("tool calls with stop strings", CALLS, tools(json!({"stop": ["look!", "Köln"]}))),
        chat("tool calls with log probabilities", CALLS, tools(json!({"logprobs": true, "stop": "look!"}))),
        chat("what is no call", "say:a <tool_call> b <tool_call>{\"name\": \"f", tools(json!({}))),
        chat(
            "a call that must come",
            "say:x",
            tools(json!({
            "tool_choice": {"type": "function", "function": {"name": "sum"}}, "max_tokens": 300})),
        ),
        chat("several choices", "say:Köln #", json!({"n": 3, "seed": 1})),
        chat("several choices of a drawn seed", "say:#🦀#", json!({"n": 2, "logprobs": true})),
        chat("choices that call tools", CALLS, tools(json!({"n": 2, "logprobs": true}))),
        chat("a schema", said, json!({"response_format": schema()})),
        chat("choices of a schema", said, json!({"response_format": schema(), "n": 2, "logprobs": true})),
        chat("a regular expression", "say:abbbc", json!({"guided_regex": "a[bx]*c", "max_tokens": 9})),
        reasons("reasoning", thinks, json!({})),
        reasons("reasoning with log probabilities", thinks, json!({"logprobs": true, "stop": "Because!"})),
        reasons(
            "reasoning that is cut",
            thinks,
            json!({"max_tokens": 12, "stream_options": {
            "include_usage": true, "continuous_usage_stats": true}}),
        ),
        completion("a completion", 1, json!({"prompt": "say:Köln 🦀 x", "max_tokens": 40})),
        completion("an echo", 1, json!({"prompt": "say:abc", "echo": true})),
        completion(
            "an echo with log probabilities",
            1,
            json!({"prompt": "say:é", "echo": true, "logprobs": 2}),
        ),
        completion(
            "echoes of several prompts",
            4,
            json!({
            "prompt": ["say:é#", "say:xy#"], "n": 2, "echo": true, "logprobs": 1}),
        ),
        completion("several prompts of a drawn seed", 4, json!({"prompt": ["say:#", "say:##"], "n": 2})),
        completion(
            "a prompt that is scored",
            1,
            json!({
            "prompt": "say:é", "echo": true, "logprobs": 1, "max_tokens": 0}),
        ),
    ]
}
