//! A JSON object as parameters that are taken one by one; what is left at the end is refused. Every refusal names the
//! parameter by its path, such as `messages[0].content`.

use super::error::ApiError;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// Parameters that were not taken yet.
#[derive(Debug)]
pub(super) struct Parameters {
    fields: Map<String, Value>,
    /// What the fields' names follow: empty, or `messages[0].`.
    prefix: String,
}

/// A parameter of OpenAI's API that this build accepts only where it changes nothing.
pub(super) struct Neutral {
    pub name: &'static str,
    /// The value changes nothing.
    pub is_neutral: fn(&Value) -> bool,
}

impl Parameters {
    /// Parses the body of a request.
    pub fn parse(body: &[u8]) -> Result<Parameters, ApiError> {
        let value = serde_json::from_slice(body).map_err(|error| ApiError::malformed_json(&error))?;
        match value {
            Value::Object(fields) => Ok(Parameters { fields, prefix: String::new() }),
            other => Err(ApiError::no_object(named(&other))),
        }
    }

    /// The fields of `value`, which stands at `path`.
    pub fn of(value: Value, path: &str) -> Result<Parameters, ApiError> {
        match value {
            Value::Object(fields) => Ok(Parameters { fields, prefix: format!("{path}.") }),
            other => Err(wrong_type(path, "an object", &other)),
        }
    }

    /// The parameter's path in the request.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The parameters that were not taken yet.
    pub fn names(&self) -> Vec<String> {
        self.fields.keys().cloned().collect()
    }

    /// Takes a parameter of any type; null counts as not given.
    pub fn any(&mut self, name: &str) -> Option<Value> {
        #[cfg(test)]
        recorded::add(self.path(name));
        self.fields.shift_remove(name).filter(|value| !value.is_null())
    }

    pub fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.typed(name, "a string", |value| match value {
            Value::String(text) => Ok(text),
            other => Err(other),
        })
    }

    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.typed(name, "true or false", |value| value.as_bool().ok_or(value))
    }

    pub fn array(&mut self, name: &str) -> Result<Option<Vec<Value>>, ApiError> {
        self.typed(name, "an array", |value| match value {
            Value::Array(items) => Ok(items),
            other => Err(other),
        })
    }

    pub fn object(&mut self, name: &str) -> Result<Option<Parameters>, ApiError> {
        let path = self.path(name);
        self.any(name).map(|value| Parameters::of(value, &path)).transpose()
    }

    pub fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let read = |value| whole(&value).map(|number| (number, value.clone())).ok_or(value);
        let Some((number, value)) = self.typed(name, "an integer", read)? else { return Ok(None) };
        match i64::try_from(number) {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.out_of_range(name, &value, &range)),
        }
    }

    /// An integer of 64 bits that is not negative.
    pub fn unsigned(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        let read = |value| whole(&value).map(|number| (number, value.clone())).ok_or(value);
        let Some((number, value)) = self.typed(name, "an integer", read)? else { return Ok(None) };
        let in_range = u64::try_from(number);
        in_range.map(Some).map_err(|_| self.out_of_range(name, &value, &(0..=u64::MAX)))
    }

    pub fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, ApiError> {
        let read = |value: Value| value.as_f64().map(|number| (number, value.clone())).ok_or(value);
        match self.typed(name, "a number", read)? {
            Some((number, value)) if !range.contains(&number) => Err(self.out_of_range(name, &value, &range)),
            found => Ok(found.map(|(number, _)| number)),
        }
    }

    /// Takes the parameters in `table`, and refuses those that would change something.
    pub fn only_neutral(&mut self, table: &[Neutral]) -> Result<(), ApiError> {
        for Neutral { name, is_neutral } in table {
            if let Some(value) = self.any(name)
                && !is_neutral(&value)
            {
                let path = self.path(name);
                let shown = shortened(&value);
                return Err(ApiError::unsupported(
                    &path,
                    format!("'{path}' = {shown} is not supported yet; leave it out."),
                ));
            }
        }
        Ok(())
    }

    /// Refuses what was not taken.
    pub fn finish(self) -> Result<(), ApiError> {
        let left =
            self.fields.iter().find(|(_, value)| !value.is_null()).or_else(|| self.fields.iter().next());
        match left {
            None => Ok(()),
            Some((name, _)) => Err(ApiError::unknown_parameter(&self.path(name))),
        }
    }

    fn typed<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(Value) -> Result<T, Value>,
    ) -> Result<Option<T>, ApiError> {
        let path = self.path(name);
        self.any(name)
            .map(|value| read(value).map_err(|other| wrong_type(&path, expected, &other)))
            .transpose()
    }

    fn out_of_range<T: std::fmt::Display>(
        &self,
        name: &str,
        found: &Value,
        range: &RangeInclusive<T>,
    ) -> ApiError {
        let path = self.path(name);
        let (least, most, found) = (range.start(), range.end(), shortened(found));
        ApiError::invalid(&path, format!("'{path}' must be between {least} and {most}, not {found}."))
    }
}

/// A number without a fraction: some clients write 5 as 5.0. One that is beyond all ranges stays so: -2^63-1 does not
/// fit, is read as a float, and would be rounded back to -2^63.
pub(super) fn whole(value: &Value) -> Option<i128> {
    let number = value.as_number()?;
    let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    integer.or_else(|| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0)?;
        Some(if float <= i64::MIN as f64 { i128::MIN } else { float as i128 })
    })
}

pub(super) fn wrong_type(path: &str, expected: &str, found: &Value) -> ApiError {
    ApiError::invalid(path, format!("'{path}' must be {expected}, not {}.", named(found)))
}

fn named(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The value as it was sent, but not at any length.
pub(super) fn shortened(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > 80 {
        text.truncate(text.floor_char_boundary(80));
        text.push('…');
    }
    text
}

/// Every name that was asked for on this thread, for the test that all of them are documented.
#[cfg(test)]
pub(super) mod recorded {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        static NAMES: RefCell<BTreeSet<String>> = RefCell::default();
    }

    pub fn clear() {
        NAMES.take();
    }

    /// Adds a path; the numbers of items do not matter.
    pub fn add(path: String) {
        let items = path.split('[').map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
        let path = items.collect::<Vec<_>>().join("[");
        NAMES.with_borrow_mut(|names| names.insert(path));
    }

    pub fn names() -> BTreeSet<String> {
        NAMES.with_borrow(Clone::clone)
    }
}
