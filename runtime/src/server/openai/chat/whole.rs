//! The message of an answer that is sent whole.

use super::answer::Form;
use crate::answer_text::PlacedToken;
use crate::chat_output::{Delta, Spoken};
use serde_json::{Value, json};

/// All that an answer said.
#[derive(Debug, Default)]
pub(super) struct Whole {
    reasoning: String,
    content: String,
    /// Function and arguments.
    calls: Vec<(String, String)>,
    pub tokens: Vec<PlacedToken>,
}

impl Whole {
    pub fn extend(&mut self, deltas: Vec<Delta>) {
        for delta in deltas {
            self.tokens.extend(delta.tokens);
            match delta.part {
                Spoken::Reasoning(text) => self.reasoning.push_str(&text),
                Spoken::Content(text) => self.content.push_str(&text),
                Spoken::CallBegins { name, .. } => self.calls.push((name, String::new())),
                Spoken::Arguments { index, text } => self.calls[index].1.push_str(&text),
            }
        }
    }

    /// The message; `number` makes the ids of calls.
    pub fn message(self, form: Form, number: impl Fn(usize) -> u64) -> Value {
        let only_calls = self.content.is_empty() && !self.calls.is_empty();
        let content = if only_calls { Value::Null } else { self.content.into() };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if form.reasons {
            let reasoning = if self.reasoning.is_empty() { Value::Null } else { self.reasoning.into() };
            message["reasoning"] = reasoning.clone();
            message["reasoning_content"] = reasoning;
        }
        if !self.calls.is_empty() {
            let call = |(at, (name, arguments)): (usize, (String, String))| {
                let id = form.tool_format.call_id(number(at));
                json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
            };
            message["tool_calls"] = self.calls.into_iter().enumerate().map(call).collect();
        }
        message
    }
}
