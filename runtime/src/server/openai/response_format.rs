//! The form that an answer is asked to have: OpenAI's `response_format`, vLLM's `structured_outputs`, and the names that
//! vLLM had for it before.

use super::error::ApiError;
use super::parameters::{Parameters, wrong_type};
use crate::grammar::Format;
use serde_json::Value;

/// A form, and the parameter that asks for it.
#[derive(Debug, PartialEq)]
pub(super) struct Form {
    pub param: &'static str,
    pub format: Format,
}

/// What reads a value, which stands at a path, as a form.
type Read = fn(Value, &str) -> Result<Format, ApiError>;

/// Takes what asks for a form; two of them cannot hold together.
pub(super) fn take(parameters: &mut Parameters) -> Result<Option<Form>, ApiError> {
    let mut forms = Vec::new();
    if let Some(format) = response_format(parameters)? {
        forms.push(Form { param: "response_format", format });
    }
    if let Some(asked) = parameters.object("structured_outputs")? {
        forms.push(Form { param: "structured_outputs", format: structured_outputs(asked)? });
    }
    let older: [(&'static str, Read); 4] = [
        ("guided_json", schema),
        ("guided_regex", regex),
        ("guided_choice", choice),
        ("guided_grammar", lark),
    ];
    for (param, read) in older {
        if let Some(value) = parameters.any(param) {
            forms.push(Form { param, format: read(value, param)? });
        }
    }
    match &forms[..] {
        [first, second, ..] => {
            let (first, second) = (first.param, second.param);
            let message =
                format!("'{first}' and '{second}' both give the answer a form; give only one of them.");
            Err(ApiError::invalid(second, message))
        }
        _ => Ok(forms.pop()),
    }
}

fn response_format(parameters: &mut Parameters) -> Result<Option<Format>, ApiError> {
    let Some(mut asked) = parameters.object("response_format")? else { return Ok(None) };
    let kind = asked.string("type")?.ok_or_else(|| ApiError::missing("response_format.type"))?;
    let format = match kind.as_str() {
        "text" => None,
        "json_object" => Some(Format::JsonObject),
        "json_schema" => Some(json_schema(&mut asked)?),
        other => {
            let message = format!(
                "'response_format.type' must be 'text', 'json_object' or 'json_schema', not '{}'.",
                other.chars().take(80).collect::<String>()
            );
            return Err(ApiError::invalid("response_format.type", message));
        }
    };
    asked.finish()?;
    Ok(format)
}

fn json_schema(asked: &mut Parameters) -> Result<Format, ApiError> {
    const PATH: &str = "response_format.json_schema";
    let mut described = asked.object("json_schema")?.ok_or_else(|| ApiError::missing(PATH))?;
    if described.string("name")?.is_none() {
        return Err(ApiError::missing(&described.path("name")));
    }
    described.string("description")?;
    // The schema is kept in any case.
    described.boolean("strict")?;
    let path = described.path("schema");
    let schema = described.any("schema").ok_or_else(|| ApiError::missing(&path))?;
    if !schema.is_object() {
        return Err(wrong_type(&path, "an object", &schema));
    }
    described.finish()?;
    Ok(Format::JsonSchema(schema))
}

fn structured_outputs(mut asked: Parameters) -> Result<Format, ApiError> {
    let kinds: [(&str, Read); 5] = [
        ("json", schema),
        ("regex", regex),
        ("choice", choice),
        ("grammar", lark),
        ("json_object", json_object),
    ];
    let mut formats = Vec::new();
    for (name, read) in kinds {
        let path = asked.path(name);
        if let Some(value) = asked.any(name) {
            formats.push(read(value, &path)?);
        }
    }
    asked.finish()?;
    match (formats.pop(), formats.len()) {
        (Some(format), 0) => Ok(format),
        (_, others) => {
            let given = if others == 0 { "none" } else { "several" };
            let message = format!(
                "'structured_outputs' must have exactly one of json, regex, choice, grammar and json_object, not {given}."
            );
            Err(ApiError::invalid("structured_outputs", message))
        }
    }
}

/// A schema, or its text.
fn schema(value: Value, path: &str) -> Result<Format, ApiError> {
    match value {
        Value::Object(_) => Ok(Format::JsonSchema(value)),
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(schema @ Value::Object(_)) => Ok(Format::JsonSchema(schema)),
            Ok(other) => Err(wrong_type(path, "an object", &other)),
            Err(error) => Err(ApiError::invalid(path, format!("'{path}' is not valid JSON: {error}."))),
        },
        other => Err(wrong_type(path, "a JSON schema", &other)),
    }
}

fn regex(value: Value, path: &str) -> Result<Format, ApiError> {
    string(value, path).map(Format::Regex)
}

fn lark(value: Value, path: &str) -> Result<Format, ApiError> {
    string(value, path).map(Format::Lark)
}

fn choice(value: Value, path: &str) -> Result<Format, ApiError> {
    match value {
        Value::Array(items) => {
            let items = items.into_iter().enumerate();
            let choices: Result<_, _> =
                items.map(|(at, item)| string(item, &format!("{path}[{at}]"))).collect();
            choices.map(Format::Choice)
        }
        other => Err(wrong_type(path, "an array of strings", &other)),
    }
}

fn json_object(value: Value, path: &str) -> Result<Format, ApiError> {
    match value {
        Value::Bool(true) => Ok(Format::JsonObject),
        other => Err(wrong_type(path, "true", &other)),
    }
}

fn string(value: Value, path: &str) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong_type(path, "a string", &other)),
    }
}
