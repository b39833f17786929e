//! `messages` of a chat request.

use super::error::ApiError;
use super::parameters::{Neutral, Parameters, wrong_type};
use crate::conversation::{CallKind, CalledFunction, Message, Role, ToolCall};
use serde_json::{Map, Value};

/// What clients send back with an answer that they got; carries nothing here.
const NEUTRAL: &[Neutral] = &[
    Neutral { name: "annotations", is_neutral: empty },
    Neutral { name: "tool_calls", is_neutral: empty },
    Neutral { name: "function_call", is_neutral: |_| false },
    Neutral { name: "refusal", is_neutral: |_| false },
    Neutral { name: "audio", is_neutral: |_| false },
    Neutral { name: "parsed", is_neutral: |_| true },
];

/// The same in a call that OpenAI's client put together from a stream.
const NEUTRAL_IN_CALL: &[Neutral] = &[Neutral { name: "index", is_neutral: Value::is_u64 }];
const NEUTRAL_IN_FUNCTION: &[Neutral] = &[Neutral { name: "parsed_arguments", is_neutral: |_| true }];

/// Takes `messages`; at least one.
pub(super) fn take(parameters: &mut Parameters) -> Result<Vec<Message>, ApiError> {
    let Some(given) = parameters.array("messages")? else { return Err(ApiError::missing("messages")) };
    if given.is_empty() {
        return Err(ApiError::invalid("messages", "'messages' must hold at least one message."));
    }
    given.into_iter().enumerate().map(|(at, value)| message(value, &format!("messages[{at}]"))).collect()
}

fn message(value: Value, path: &str) -> Result<Message, ApiError> {
    let mut fields = Parameters::of(value, path)?;
    let role = role(&mut fields)?;
    let tool_calls = if role == Role::Assistant { tool_calls(&mut fields)? } else { Vec::new() };
    let reasoning_content = if role == Role::Assistant { reasoning(&mut fields)? } else { None };
    let tool_call_id = if role == Role::Tool { Some(required(&mut fields, "tool_call_id")?) } else { None };
    let content = content(&mut fields, role)?;
    if content.is_none() && tool_calls.is_empty() {
        return Err(ApiError::missing(&fields.path("content")));
    }
    let name = fields.string("name")?;
    fields.only_neutral(NEUTRAL)?;
    fields.finish()?;
    Ok(Message { role, content, name, reasoning_content, tool_calls, tool_call_id })
}

fn role(fields: &mut Parameters) -> Result<Role, ApiError> {
    let path = fields.path("role");
    let role = required(fields, "role")?;
    match role.as_str() {
        "system" => Ok(Role::System),
        "developer" => Ok(Role::Developer),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        "function" => {
            let message = format!("'{path}' is 'function', which is deprecated; use 'tool'.");
            Err(ApiError::unsupported(&path, message))
        }
        _ => {
            let message = format!(
                "'{path}' is '{role}'; supported are 'system', 'developer', 'user', 'assistant' and 'tool'."
            );
            Err(ApiError::invalid(&path, message))
        }
    }
}

fn required(fields: &mut Parameters, name: &str) -> Result<String, ApiError> {
    let path = fields.path(name);
    fields.string(name)?.ok_or_else(|| ApiError::missing(&path))
}

/// Under vLLM's older or its newer name; we send both, and get both back.
fn reasoning(fields: &mut Parameters) -> Result<Option<String>, ApiError> {
    let newer = fields.string("reasoning")?;
    Ok(fields.string("reasoning_content")?.or(newer))
}

fn content(fields: &mut Parameters, role: Role) -> Result<Option<String>, ApiError> {
    let path = fields.path("content");
    match fields.any("content") {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Array(parts)) => text_of(parts, &path, role).map(Some),
        Some(other) => Err(wrong_type(&path, "a string or an array of text parts", &other)),
    }
}

/// The parts' texts, one a line.
fn text_of(parts: Vec<Value>, path: &str, role: Role) -> Result<String, ApiError> {
    let part = |(at, part): (usize, Value)| {
        let mut fields = Parameters::of(part, &format!("{path}[{at}]"))?;
        let kind_path = fields.path("type");
        let kind = required(&mut fields, "type")?;
        let name = match kind.as_str() {
            "text" => "text",
            "refusal" if role == Role::Assistant => "refusal",
            _ => {
                let message = format!("'{kind_path}' is '{kind}'; only 'text' parts are supported.");
                return Err(ApiError::unsupported(&kind_path, message));
            }
        };
        let text = required(&mut fields, name)?;
        fields.finish()?;
        Ok(text)
    };
    let texts: Result<Vec<String>, ApiError> = parts.into_iter().enumerate().map(part).collect();
    Ok(texts?.join("\n"))
}

fn tool_calls(fields: &mut Parameters) -> Result<Vec<ToolCall>, ApiError> {
    let path = fields.path("tool_calls");
    let calls = fields.array("tool_calls")?.unwrap_or_default();
    let call = |(at, call): (usize, Value)| {
        let mut fields = Parameters::of(call, &format!("{path}[{at}]"))?;
        let id = required(&mut fields, "id")?;
        let kind_path = fields.path("type");
        let kind = required(&mut fields, "type")?;
        if kind != "function" {
            let message = format!("'{kind_path}' is '{kind}'; only 'function' is supported.");
            return Err(ApiError::unsupported(&kind_path, message));
        }
        let function_path = fields.path("function");
        let mut function = fields.object("function")?.ok_or_else(|| ApiError::missing(&function_path))?;
        let name = required(&mut function, "name")?;
        let arguments = parsed(required(&mut function, "arguments")?);
        function.only_neutral(NEUTRAL_IN_FUNCTION)?;
        function.finish()?;
        fields.only_neutral(NEUTRAL_IN_CALL)?;
        fields.finish()?;
        Ok(ToolCall { id, kind: CallKind::Function, function: CalledFunction { name, arguments } })
    };
    calls.into_iter().enumerate().map(call).collect()
}

/// The object that the text holds, as transformers and the templates of Hermes and Qwen want it. Text of another kind
/// came from a model, and goes back to it as it came.
fn parsed(arguments: String) -> Value {
    if arguments.trim().is_empty() {
        return Value::Object(Map::new());
    }
    match serde_json::from_str(&arguments) {
        Ok(object @ Value::Object(_)) => object,
        _ => Value::String(arguments),
    }
}

/// An empty object or array.
fn empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}
