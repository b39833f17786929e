//! JSON as Python's `json.dumps` writes it; templates were written against that.

use serde_json::Value;
use std::fmt::Write;

/// The options of `json.dumps` that templates use.
pub(super) struct PythonJson {
    /// Spaces a level; everything on one line if absent.
    pub indent: Option<usize>,
    /// Characters beyond ASCII as `\uXXXX`.
    pub ascii: bool,
    /// Keys in alphabetical order.
    pub sorted: bool,
}

impl PythonJson {
    pub(super) fn write(&self, value: &Value) -> String {
        let mut out = String::new();
        self.value(&mut out, value, 0);
        out
    }

    fn value(&self, out: &mut String, value: &Value, depth: usize) {
        match value {
            Value::String(text) => self.string(out, text),
            Value::Array(items) => self.sequence(out, ['[', ']'], items.len(), depth, |out, at| {
                self.value(out, &items[at], depth + 1);
            }),
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                if self.sorted {
                    fields.sort_by_key(|(name, _)| *name);
                }
                self.sequence(out, ['{', '}'], fields.len(), depth, |out, at| {
                    self.string(out, fields[at].0);
                    out.push_str(": ");
                    self.value(out, fields[at].1, depth + 1);
                });
            }
            plain => out.push_str(&plain.to_string()),
        }
    }

    fn sequence(
        &self,
        out: &mut String,
        brackets: [char; 2],
        length: usize,
        depth: usize,
        mut item: impl FnMut(&mut String, usize),
    ) {
        out.push(brackets[0]);
        for at in 0..length {
            match self.indent {
                Some(spaces) => {
                    let _ = write!(
                        out,
                        "{}\n{}",
                        if at > 0 { "," } else { "" },
                        " ".repeat(spaces * (depth + 1))
                    );
                }
                None if at > 0 => out.push_str(", "),
                None => {}
            }
            item(out, at);
        }
        if let (Some(spaces), true) = (self.indent, length > 0) {
            let _ = write!(out, "\n{}", " ".repeat(spaces * depth));
        }
        out.push(brackets[1]);
    }

    fn string(&self, out: &mut String, text: &str) {
        let json = Value::from(text).to_string();
        if !self.ascii {
            out.push_str(&json);
            return;
        }
        for c in json.chars() {
            if c.is_ascii() {
                out.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn written_as_python_writes_it() {
        let value = json!({"b": [1, 2.5, null], "a": {"x": "ü<'>"}, "e": []});
        let plain = PythonJson { indent: None, ascii: false, sorted: false };
        assert_eq!(plain.write(&value), r#"{"b": [1, 2.5, null], "a": {"x": "ü<'>"}, "e": []}"#);
        let other = PythonJson { indent: Some(2), ascii: true, sorted: true };
        let expected = "{\n  \"a\": {\n    \"x\": \"\\u00fc<'>\"\n  },\n  \"b\": [\n    1,\n    2.5,\n    null\n  ],\n  \"e\": []\n}";
        assert_eq!(other.write(&value), expected);
    }
}
