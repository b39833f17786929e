//! The few forms of JSON schema that the document is made of.

use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;

pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

pub(super) fn string(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

pub(super) fn boolean(default: bool, description: &str) -> Value {
    json!({"type": "boolean", "default": default, "description": description})
}

pub(super) fn integer(range: RangeInclusive<i64>, description: &str) -> Value {
    json!({"type": "integer", "minimum": range.start(), "maximum": range.end(), "description": description})
}

pub(super) fn number(range: RangeInclusive<f64>, default: f64, description: &str) -> Value {
    json!({
        "type": "number", "minimum": range.start(), "maximum": range.end(), "default": default,
        "description": description,
    })
}

/// A number of things in an answer.
pub(super) fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

pub(super) fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

/// A parameter that is taken only where it changes nothing.
pub(super) fn neutral(values: Value) -> Value {
    json!({"enum": values, "description": "Changes nothing; other values are not supported."})
}

/// A parameter of OpenAI's that is known, and refused unless it is null.
pub(super) fn unsupported() -> Value {
    json!({"type": "null", "description": "Not supported."})
}

pub(super) fn nullable(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(fields) if fields.contains_key("type") => {
            let kind = fields["type"].take();
            if kind == "null" {
                fields["type"] = kind;
            } else {
                fields["type"] = json!([kind, "null"]);
            }
        }
        Value::Object(fields) if fields.contains_key("enum") => {
            if let Some(Value::Array(values)) = fields.get_mut("enum") {
                values.push(Value::Null);
            }
        }
        Value::Object(fields) if fields.contains_key("anyOf") => {
            if let Some(Value::Array(forms)) = fields.get_mut("anyOf") {
                forms.push(json!({"type": "null"}));
            }
        }
        _ => schema = json!({"anyOf": [schema, {"type": "null"}]}),
    }
    schema
}

/// An object of a request. What is not `required` may be null.
pub(super) fn parameters(required: &[&str], properties: Value) -> Value {
    let properties: Map<String, Value> = match properties {
        Value::Object(properties) => properties
            .into_iter()
            .map(|(name, schema)| {
                let schema = if required.contains(&name.as_str()) { schema } else { nullable(schema) };
                (name, schema)
            })
            .collect(),
        _ => Map::new(),
    };
    json!({
        "type": "object", "required": required, "properties": properties, "additionalProperties": false,
    })
}

/// An object of an answer. What is not `optional` is always there.
pub(super) fn answer(optional: &[&str], properties: Value) -> Value {
    let names = properties.as_object().into_iter().flat_map(Map::keys);
    let required: Vec<&String> = names.filter(|name| !optional.contains(&name.as_str())).collect();
    json!({
        "type": "object", "required": required, "properties": properties, "additionalProperties": false,
    })
}

/// The fields of both objects.
pub(super) fn together(mut some: Value, more: Value) -> Value {
    if let (Value::Object(some), Value::Object(more)) = (&mut some, more) {
        some.extend(more);
    }
    some
}
