//! `messages` of a chat request.

use super::error::ApiError;
use super::parameters::{Neutral, Parameters, wrong_type};
use super::settings::empty;
use crate::chat_template::Message;
use serde_json::Value;

const ROLES: [&str; 3] = ["system", "user", "assistant"];

/// What clients send back with an answer that they got; carries nothing here.
const NEUTRAL: &[Neutral] = &[
    Neutral { name: "annotations", is_neutral: empty },
    Neutral { name: "tool_calls", is_neutral: empty },
    Neutral { name: "function_call", is_neutral: |_| false },
    Neutral { name: "refusal", is_neutral: |_| false },
    Neutral { name: "audio", is_neutral: |_| false },
];

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
    let role_path = fields.path("role");
    let role = fields.string("role")?.ok_or_else(|| ApiError::missing(&role_path))?;
    if !ROLES.contains(&role.as_str()) {
        let known = ["developer", "tool", "function"].contains(&role.as_str());
        let message = format!("'{role_path}' is '{role}'; supported are 'system', 'user' and 'assistant'.");
        return Err(if known {
            ApiError::unsupported(&role_path, message)
        } else {
            ApiError::invalid(&role_path, message)
        });
    }
    let content_path = fields.path("content");
    let content = match fields.any("content") {
        None => return Err(ApiError::missing(&content_path)),
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => text_of(parts, &content_path)?,
        Some(other) => return Err(wrong_type(&content_path, "a string or an array of text parts", &other)),
    };
    let name = fields.string("name")?;
    fields.only_neutral(NEUTRAL)?;
    fields.finish()?;
    Ok(Message { role, content, name })
}

/// The parts' texts, one a line.
fn text_of(parts: Vec<Value>, path: &str) -> Result<String, ApiError> {
    let texts: Result<Vec<String>, ApiError> = parts
        .into_iter()
        .enumerate()
        .map(|(at, part)| {
            let mut fields = Parameters::of(part, &format!("{path}[{at}]"))?;
            let kind_path = fields.path("type");
            match fields.string("type")?.as_deref() {
                None => return Err(ApiError::missing(&kind_path)),
                Some("text") => {}
                Some(kind) => {
                    let message = format!("'{kind_path}' is '{kind}'; only 'text' parts are supported.");
                    return Err(ApiError::unsupported(&kind_path, message));
                }
            }
            let text_path = fields.path("text");
            let text = fields.string("text")?.ok_or_else(|| ApiError::missing(&text_path))?;
            fields.finish()?;
            Ok(text)
        })
        .collect();
    Ok(texts?.join("\n"))
}
