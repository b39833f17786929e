//! What is refused before it is compiled: sizes, depths, and what llguidance's own limits do not cover.

use super::{Format, GrammarError, nesting};
use serde_json::{Map, Value};

/// Bytes of a schema, a grammar, or all choices together.
pub(crate) const LONGEST_TEXT: usize = 64 << 10;
/// Bytes of a regular expression.
pub(crate) const LONGEST_REGEX: usize = 4 << 10;
pub(crate) const MOST_CHOICES: usize = 1024;
/// Objects and arrays of a schema inside one another.
const DEEPEST_SCHEMA: usize = 64;
/// Largest least common multiple of a schema's `multipleOf`, in steps of the smallest decimal: a state for each of them.
const LARGEST_MULTIPLE: u64 = 10_000;

/// Refuses what is too much to look at closer.
pub(super) fn check(format: &Format) -> Result<(), GrammarError> {
    match format {
        Format::JsonObject => Ok(()),
        Format::JsonSchema(value) => schema(value),
        Format::Regex(expression) => regex("the regular expression", expression),
        Format::Choice(choices) => choice(choices),
        Format::Lark(text) => {
            within("the grammar", text.len(), LONGEST_TEXT)?;
            nesting::check_lark(text, &mut |value| schema(value))
        }
    }
}

fn within(what: &'static str, bytes: usize, limit: usize) -> Result<(), GrammarError> {
    if bytes > limit { Err(GrammarError::TooLong { what, bytes, limit }) } else { Ok(()) }
}

fn regex(what: &'static str, expression: &str) -> Result<(), GrammarError> {
    within(what, expression.len(), LONGEST_REGEX)?;
    nesting::check_regex(what, expression)
}

fn choice(choices: &[String]) -> Result<(), GrammarError> {
    if choices.is_empty() {
        return Err(GrammarError::NoChoice);
    }
    if choices.len() > MOST_CHOICES {
        return Err(GrammarError::TooManyChoices { choices: choices.len(), limit: MOST_CHOICES });
    }
    if choices.iter().any(String::is_empty) {
        return Err(GrammarError::EmptyChoice);
    }
    within("the list of choices", choices.iter().map(String::len).sum(), LONGEST_TEXT)
}

fn schema(value: &Value) -> Result<(), GrammarError> {
    // Depth first, that nothing below writes a deep one out.
    let mut multiples = Vec::new();
    walk(value, 0, &mut multiples)?;
    within("the schema", value.to_string().len(), LONGEST_TEXT)?;
    if least_multiple(&multiples).is_none_or(|multiple| multiple > LARGEST_MULTIPLE) {
        return Err(GrammarError::LargeMultiple(LARGEST_MULTIPLE));
    }
    Ok(())
}

fn walk(value: &Value, depth: usize, multiples: &mut Vec<f64>) -> Result<(), GrammarError> {
    if depth > DEEPEST_SCHEMA {
        return Err(GrammarError::TooDeep { what: "the schema", limit: DEEPEST_SCHEMA });
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| walk(item, depth + 1, multiples)),
        Value::Object(fields) => {
            keywords(fields, multiples)?;
            fields.values().try_for_each(|field| walk(field, depth + 1, multiples))
        }
        _ => Ok(()),
    }
}

fn keywords(fields: &Map<String, Value>, multiples: &mut Vec<f64>) -> Result<(), GrammarError> {
    if let Some(reference) = fields.get("$ref").and_then(Value::as_str)
        && !reference.starts_with('#')
    {
        return Err(GrammarError::RemoteRef(reference.chars().take(200).collect()));
    }
    if let Some(pattern) = fields.get("pattern").and_then(Value::as_str) {
        regex("a pattern of the schema", pattern)?;
    }
    if let Some(patterns) = fields.get("patternProperties").and_then(Value::as_object) {
        patterns.keys().try_for_each(|pattern| regex("a pattern of the schema", pattern))?;
    }
    multiples.extend(fields.get("multipleOf").and_then(Value::as_f64));
    Ok(())
}

/// In units of the smallest decimal place of any; `None` if it is too large to tell.
fn least_multiple(numbers: &[f64]) -> Option<u64> {
    let mut unit = 1.0;
    while numbers.iter().any(|number| (number * unit).fract() != 0.0) {
        unit *= 10.0;
        if unit > 1e9 {
            return None;
        }
    }
    numbers.iter().try_fold(1u64, |multiple, number| {
        let number = (number * unit).abs();
        if number > f64::from(u32::MAX) {
            return None;
        }
        let number = (number as u64).max(1);
        (multiple / greatest_divisor(multiple, number)).checked_mul(number)
    })
}

fn greatest_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}
