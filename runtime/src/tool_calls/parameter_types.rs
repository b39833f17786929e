//! What the text of a parameter becomes in JSON: families that write parameters between tags write strings without
//! quotes, and only the tool's schema tells `5` from `"5"`.

use serde::de::IgnoredAny;
use serde_json::Value;

/// References that are followed one to the next.
const MOST_REFERENCES: usize = 8;

/// The kinds of JSON that a parameter may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ParameterTypes {
    /// The schema names no type: anything.
    any: bool,
    text: bool,
    number: bool,
    boolean: bool,
    null: bool,
    object: bool,
    array: bool,
}

impl ParameterTypes {
    /// Of `parameter` in a tool's `schema`; anything where that does not say.
    pub fn of(schema: Option<&Value>, parameter: &str) -> ParameterTypes {
        let mut types = ParameterTypes::default();
        let property = schema.and_then(|schema| {
            types.add(schema, schema.get("properties")?.get(parameter)?, 0);
            Some(())
        });
        let none = types == ParameterTypes::default();
        ParameterTypes { any: property.is_none() || none || types.any, ..types }
    }

    /// Its text is a string, whatever it is.
    pub fn is_text(self) -> bool {
        self == ParameterTypes { text: true, ..ParameterTypes::default() }
    }

    /// It may be a string.
    pub fn may_be_text(self) -> bool {
        self.text || self.any
    }

    /// The JSON that `text` stands for: a string, unless it spells something else that the parameter may be. Where it may
    /// be a string, too, a number or a truth value is one.
    pub fn json(self, text: &str) -> String {
        let word = text.trim();
        if self.null && matches!(word, "null" | "None") {
            return "null".to_owned();
        }
        // Python's spelling, which Qwen3-Coder's template has.
        if self.boolean && !self.text && matches!(word, "True" | "False") {
            return word.to_ascii_lowercase();
        }
        let kind = word.chars().next().unwrap_or_default();
        let spells = if self.text {
            (kind == '{' && self.object) || (kind == '[' && self.array)
        } else {
            !self.is_text()
        };
        if spells && serde_json::from_str::<IgnoredAny>(word).is_ok() {
            return word.to_owned();
        }
        Value::from(text).to_string()
    }

    fn add(&mut self, root: &Value, schema: &Value, depth: usize) {
        if depth > MOST_REFERENCES {
            return;
        }
        match schema.get("type") {
            Some(Value::String(name)) => self.add_named(name),
            Some(Value::Array(names)) => {
                names.iter().filter_map(Value::as_str).for_each(|name| self.add_named(name));
            }
            _ => {}
        }
        if schema.get("type").is_some() {
            return;
        }
        schema.get("const").into_iter().for_each(|value| self.add_kind(value));
        schema
            .get("enum")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .for_each(|value| self.add_kind(value));
        for keyword in ["anyOf", "oneOf", "allOf"] {
            let choices = schema.get(keyword).and_then(Value::as_array).into_iter().flatten();
            choices.for_each(|choice| self.add(root, choice, depth + 1));
        }
        if let Some(Value::String(reference)) = schema.get("$ref")
            && let Some(target) = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer))
        {
            self.add(root, target, depth + 1);
        }
    }

    fn add_named(&mut self, name: &str) {
        match name {
            "string" => self.text = true,
            "integer" | "number" => self.number = true,
            "boolean" => self.boolean = true,
            "null" => self.null = true,
            "object" => self.object = true,
            "array" => self.array = true,
            _ => self.any = true,
        }
    }

    fn add_kind(&mut self, value: &Value) {
        self.add_named(match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn types(property: Value) -> ParameterTypes {
        let point = json!({"type": "object"});
        ParameterTypes::of(Some(&json!({"properties": {"p": property}, "$defs": {"point": point}})), "p")
    }

    #[test]
    fn a_string_stays_a_string_and_the_rest_is_parsed() {
        for (property, text, expected) in [
            (json!({"type": "string"}), "5", "\"5\""),
            (json!({"type": "string"}), "null", "\"null\""),
            (json!({"type": "string"}), " a \"b\"\n", "\" a \\\"b\\\"\\n\""),
            (json!({"enum": ["1", "2"]}), "1", "\"1\""),
            (json!({"type": "integer"}), " 5 ", "5"),
            (json!({"type": "integer"}), "five", "\"five\""),
            (json!({"type": "number"}), "1.50", "1.50"),
            (json!({"type": "boolean"}), "True", "true"),
            (json!({"type": "boolean"}), "false", "false"),
            (json!({"type": ["integer", "null"]}), "None", "null"),
            (json!({"type": ["string", "null"]}), "null", "null"),
            (json!({"type": ["string", "null"]}), "5", "\"5\""),
            (json!({"type": "object"}), "{\"a\": [1]}", "{\"a\": [1]}"),
            (json!({"type": "object"}), "{\"a\": [1}", "\"{\\\"a\\\": [1}\""),
            (json!({"$ref": "#/$defs/point"}), "{}", "{}"),
            (json!({"anyOf": [{"type": "string"}, {"type": "array"}]}), "[1]", "[1]"),
            (json!({"anyOf": [{"type": "string"}, {"type": "array"}]}), "{}", "\"{}\""),
            (json!({"anyOf": [{"type": "string"}, {"type": "integer"}]}), "7", "\"7\""),
            (json!({}), "7", "7"),
            (json!({}), "seven", "\"seven\""),
            (json!({"type": "file"}), "x", "\"x\""),
        ] {
            assert_eq!(types(property.clone()).json(text), expected, "{property} {text:?}");
        }
        assert_eq!(ParameterTypes::of(None, "p").json("[1, 2]"), "[1, 2]");
        assert_eq!(ParameterTypes::of(Some(&json!({"properties": {}})), "p").json(""), "\"\"");
    }

    #[test]
    fn only_what_can_be_nothing_else_is_text_at_once() {
        assert!(types(json!({"type": "string"})).is_text());
        assert!(!types(json!({"type": ["string", "null"]})).is_text());
        assert!(!types(json!({})).is_text());
        assert!(!types(json!({"$ref": "#/properties/p"})).is_text(), "a circle ends");
    }
}
