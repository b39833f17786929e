//! Calls with each parameter between tags: Qwen3-Coder, GLM-4.5, MiniMax-M2. A string is any text up to its closing tag;
//! of its schema only `enum` and `const` can be enforced.

use super::{CallGrammar, NotEnforced, Spelling, Written};
use crate::conversation::Tool;
use crate::grammar::with_json_options;
use crate::tool_calls::parameter_types::ParameterTypes;
use crate::tool_calls::tagged_parameters::ParameterMarks;
use serde_json::{Value, json};

/// Of a schema for strings, what is not enforced.
const OF_TEXT: [&str; 10] =
    ["pattern", "format", "minLength", "maxLength", "anyOf", "oneOf", "allOf", "not", "if", "$ref"];
/// Of a schema for the arguments' object, what is not enforced.
const OF_OBJECT: [&str; 12] = [
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "if",
    "$ref",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "dependentSchemas",
];

impl CallGrammar<'_> {
    pub(super) fn parameters(
        &self,
        marks: &'static ParameterMarks,
        spelling: &Spelling,
    ) -> Result<Written, NotEnforced> {
        let close = spelling.mark(marks.close);
        let inside = marks.function_end != marks.close;
        let (calls, between) = match (marks.several, inside) {
            (true, _) if self.parallel => (format!("\"\\n\" (call \"\\n\")+ {close}"), None),
            (true, _) => (format!("\"\\n\" call \"\\n\" {close}"), None),
            (false, true) => (format!("\"\\n\" call \"\\n\" {close}"), Some("\"\\n\"")),
            (false, false) => (format!("call {close}"), Some("\"\\n\"?")),
        };
        let mut rules = Vec::new();
        for (tool, rule) in self.tools.iter().zip(self.rule_names()) {
            let begin = match marks.function {
                Some(function) => {
                    format!(
                        "{} {} {} \"\\n\"",
                        spelling.mark(function),
                        json!(tool.name),
                        spelling.mark(marks.named)
                    )
                }
                None => format!("{} \"\\n\"?", json!(tool.name)),
            };
            let end = if inside { spelling.mark(marks.function_end) } else { String::new() };
            let parameters = self.of_tool(tool, marks, spelling)?;
            rules.push(format!("{rule}: {begin} {parameters} {end}"));
        }
        let any = parameter("/[A-Za-z0-9_.-]{1,64}/", "text_value", marks, spelling);
        rules.push(format!("any_parameter: {any}"));
        rules.push("VALUE: /(?s:.*)/".to_owned());
        let special = (spelling.special)(marks.value_end).is_some();
        rules.push(if marks.on_lines && !special {
            format!("text_value[lazy]: VALUE {}", json!(format!("\n{}", marks.value_end)))
        } else {
            spelling.text_up_to("text_value", "VALUE", marks.value_end)
        });
        Ok(Written { calls, between, rules })
    }

    /// The parameters of a tool, in the order of its schema.
    fn of_tool(
        &self,
        tool: &Tool,
        marks: &ParameterMarks,
        spelling: &Spelling,
    ) -> Result<String, NotEnforced> {
        let schema = tool.schema();
        let not_enforced = OF_OBJECT.into_iter().find(|keyword| schema.get(keyword).is_some());
        if let Some(keyword) = not_enforced.filter(|_| tool.strict) {
            return Err(NotEnforced { tool: tool.name.clone(), keyword, place: "the schema".to_owned() });
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        let Some(properties) = properties.filter(|_| self.is_bound(tool) && not_enforced.is_none()) else {
            return Ok("any_parameter*".to_owned());
        };
        let required = schema.get("required").and_then(Value::as_array);
        let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|other| other == name));
        let mut parameters = Vec::new();
        for (name, property) in properties {
            let value = value(tool, &schema, name, property, marks, spelling)?;
            let parameter = parameter(&json!(name).to_string(), &value, marks, spelling);
            parameters.push(if is_required(name) { parameter } else { format!("({parameter})?") });
        }
        Ok(parameters.join(" "))
    }
}

/// A parameter, of a name and a value that are written as in a grammar; the value's closing tag belongs to it.
fn parameter(name: &str, value: &str, marks: &ParameterMarks, spelling: &Spelling) -> String {
    let begin = format!("{} {name} {}", spelling.mark(marks.parameter), spelling.mark(marks.named));
    match marks.value {
        Some(mark) => format!("{begin} \"\\n\"? {} {value} \"\\n\"?", spelling.mark(mark)),
        None if marks.on_lines => format!("{begin} \"\\n\" {value} \"\\n\""),
        None => format!("{begin} {value} \"\\n\""),
    }
}

/// A parameter's value with its closing tag.
fn value(
    tool: &Tool,
    schema: &Value,
    name: &str,
    property: &Value,
    marks: &ParameterMarks,
    spelling: &Spelling,
) -> Result<String, NotEnforced> {
    let line = if marks.on_lines { "\"\\n\" " } else { "" };
    let end = format!("{line}{}", spelling.mark(marks.value_end));
    if let Some(values) = listed(property) {
        let spelled = values.iter().map(|value| match value {
            Value::String(text) => json!(text).to_string(),
            other => json!(other.to_string()).to_string(),
        });
        return Ok(format!("({}) {end}", spelled.collect::<Vec<_>>().join(" | ")));
    }
    if ParameterTypes::of(Some(schema), name).may_be_text() {
        return match OF_TEXT.into_iter().find(|keyword| tool.strict && property.get(keyword).is_some()) {
            Some(keyword) => Err(NotEnforced {
                tool: tool.name.clone(),
                keyword,
                place: format!("the parameter '{name}'"),
            }),
            None => Ok("text_value".to_owned()),
        };
    }
    let mut whole = property.clone();
    if let Value::Object(fields) = &mut whole {
        for definitions in ["$defs", "definitions"] {
            let of_tool = schema.get(definitions).cloned();
            fields.extend(of_tool.map(|those| (definitions.to_owned(), those)));
        }
    }
    Ok(format!("%json {} {end}", with_json_options(whole)))
}

/// The values that a schema lists; no empty list allows none.
fn listed(property: &Value) -> Option<Vec<&Value>> {
    let one = property.get("const").map(|value| vec![value]);
    let values = || Some(property.get("enum")?.as_array()?.iter().collect());
    one.or_else(values)
        .filter(|values: &Vec<_>| !values.is_empty() && values.iter().all(|value| **value != ""))
}
