//! Calls as JSON objects between marks: Hermes, Mistral, MiniMax-M1.

use super::call_object::CallObject;
use super::json_scanner::Broken;
use super::tagged::{Place, Section, Told};

/// How a family writes its calls between the marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// One object.
    One,
    /// A JSON array of objects, whose bracket is the closing mark.
    List,
    /// One object behind the other, as a rule one a line.
    Lines,
}

/// Reads the calls behind an opening mark.
#[derive(Clone, Debug)]
pub(super) struct JsonCalls {
    style: Style,
    close: &'static str,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// Before a call, and where `bracket` before the `[` of a list.
    Before {
        bracket: bool,
    },
    Call(CallObject),
    /// After a call, with so many bytes of the closing mark.
    After {
        matched: usize,
    },
}

impl JsonCalls {
    /// Before `close`, which is ASCII.
    pub fn new(style: Style, close: &'static str) -> JsonCalls {
        JsonCalls { style, close, state: State::Before { bracket: style == Style::List } }
    }

    fn begin(&mut self, c: char) -> Result<Told, Broken> {
        let mut call = CallObject::default();
        let told = call.push(c);
        self.state = State::Call(call);
        told
    }
}

impl Section for JsonCalls {
    fn push(&mut self, c: char) -> Result<Told, Broken> {
        match &mut self.state {
            State::Before { bracket } if c == '[' && *bracket => *bracket = false,
            State::Before { bracket: false } if c == '{' => return self.begin(c),
            State::Call(call) => {
                let told = call.push(c);
                if call.is_ended() {
                    self.state = State::After { matched: 0 };
                }
                return told;
            }
            State::After { matched } if self.close[*matched..].starts_with(c) => *matched += 1,
            State::After { matched: 0 } if c == ',' && self.style == Style::List => {
                self.state = State::Before { bracket: false };
            }
            State::After { matched: 0 } if c == '{' && self.style == Style::Lines => return self.begin(c),
            State::Before { .. } | State::After { matched: 0 } if c.is_ascii_whitespace() => {}
            _ => return Err(Broken),
        }
        Ok(Told::Nothing)
    }

    fn place(&self) -> Place {
        match &self.state {
            State::Call(call) if call.has_begun() => Place::Within,
            State::Before { .. } | State::Call(_) => Place::Before,
            State::After { matched } if *matched == self.close.len() => Place::Ended,
            State::After { .. } => Place::After,
        }
    }
}
