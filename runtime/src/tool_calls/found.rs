//! What a parser has found and not told yet.

use super::{Said, Step};

/// Steps in order; text that follows text is one step, and so are arguments.
#[derive(Debug, Default)]
pub(super) struct Found {
    steps: Vec<Step>,
}

impl Found {
    /// Text that ends before character `end`, and that follows what was found last without a gap.
    pub fn text(&mut self, text: String, end: usize) {
        match self.steps.last_mut() {
            Some(Step { said: Said::Text(before), end: last }) => {
                before.push_str(&text);
                *last = end;
            }
            _ if text.is_empty() => {}
            _ => self.steps.push(Step { said: Said::Text(text), end }),
        }
    }

    /// The same of what the model thinks.
    pub fn reasoning(&mut self, text: String, end: usize) {
        match self.steps.last_mut() {
            Some(Step { said: Said::Reasoning(before), end: last }) => {
                before.push_str(&text);
                *last = end;
            }
            _ if text.is_empty() => {}
            _ => self.steps.push(Step { said: Said::Reasoning(text), end }),
        }
    }

    /// A message begins.
    pub fn message(&mut self, end: usize) {
        self.steps.push(Step { said: Said::MessageBegins, end });
    }

    /// A call of `name` begins.
    pub fn call(&mut self, name: String, end: usize) {
        self.steps.push(Step { said: Said::CallBegins { name }, end });
    }

    /// More arguments of the call that began last.
    pub fn arguments(&mut self, text: &str, end: usize) {
        match self.steps.last_mut() {
            Some(Step { said: Said::Arguments(before), end: last }) => {
                before.push_str(text);
                *last = end;
            }
            _ => self.steps.push(Step { said: Said::Arguments(text.to_owned()), end }),
        }
    }

    /// All of it; none is told twice.
    pub fn take(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }
}
