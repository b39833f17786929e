//! A parameter's value between tags, as it becomes JSON: a string's characters as they come, any other value once it is
//! whole.

use super::parameter_types::ParameterTypes;
use super::tagged_parameters::ParameterMarks;
use serde_json::Value;

/// Reads a parameter's value up to its mark.
#[derive(Clone, Debug)]
pub(super) struct ValueReader {
    marks: &'static ParameterMarks,
    types: ParameterTypes,
    /// A line's end that belongs to the opening mark may come.
    first: bool,
    /// What may become the mark, with the line's end that belongs to it.
    held: String,
    /// What is no string, as far as it came.
    value: String,
    ended: bool,
}

impl ValueReader {
    pub fn new(marks: &'static ParameterMarks, types: ParameterTypes) -> ValueReader {
        let (held, value) = (String::new(), String::new());
        ValueReader { marks, types, first: marks.on_lines, held, value, ended: false }
    }

    /// Takes the next character, and gives what follows in the arguments.
    pub fn push(&mut self, c: char) -> Option<String> {
        if std::mem::take(&mut self.first) && c == '\n' {
            return None;
        }
        self.held.push(c);
        let mut passed = String::new();
        while !self.may_end() {
            passed.push(self.held.remove(0));
        }
        self.ended = self.mark_behind(self.held.as_str()) == Some("");
        let text = if self.types.is_text() {
            escaped(&passed) + if self.ended { "\"" } else { "" }
        } else {
            self.value += &passed;
            if self.ended { self.types.json(&self.value) } else { String::new() }
        };
        (!text.is_empty()).then_some(text)
    }

    /// Its mark is whole.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// What is held is nothing, or the beginning of the mark.
    fn may_end(&self) -> bool {
        self.held.is_empty() || self.mark_behind(&self.held).is_some()
    }

    /// The rest of the mark behind `text`, if that is its beginning.
    fn mark_behind(&self, text: &str) -> Option<&'static str> {
        let text = text.strip_prefix('\n').filter(|_| self.marks.on_lines).unwrap_or(text);
        self.marks.value_end.strip_prefix(text)
    }

    /// What came and was not passed on; where the text was `cut`, without what may become the mark.
    pub fn rest(&mut self, cut: bool) -> String {
        let held = if cut { String::new() } else { std::mem::take(&mut self.held) };
        let rest = std::mem::take(&mut self.value) + &held;
        if self.types.is_text() { escaped(&rest) } else { rest }
    }
}

/// As it stands inside the quotes of a JSON string.
fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}
