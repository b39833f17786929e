//! Calls with each parameter between tags of its own: Qwen3-Coder, GLM-4.5, MiniMax-M2. Their arguments become JSON on
//! the way: a string's characters as they come, any other value once it is whole.

use super::json_scanner::Broken;
use super::marks::{LONGEST_NAME, MarkReader, NameReader};
use super::parameter_types::ParameterTypes;
use super::parameter_value::ValueReader;
use super::tagged::{Place, Section, Told};
use crate::conversation::Tool;
use serde_json::json;
use std::sync::Arc;

/// How a family marks calls and their parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParameterMarks {
    /// Before a call, or before all calls of a section.
    pub open: &'static str,
    /// After it, or them.
    pub close: &'static str,
    /// Before a function's name; none where it follows `open` at once and a line's end or a mark ends it.
    pub function: Option<&'static str>,
    /// After a parameter's name, and a function's where `function` is before it.
    pub named: &'static str,
    /// After a call; the same as `close` where no other mark is.
    pub function_end: &'static str,
    /// Before a parameter's name.
    pub parameter: &'static str,
    /// Before a parameter's value; none where it follows `named` at once.
    pub value: Option<&'static str>,
    /// After a parameter's value.
    pub value_end: &'static str,
    /// A value stands on lines of its own.
    pub on_lines: bool,
    /// Several calls may stand between `open` and `close`.
    pub several: bool,
}

impl ParameterMarks {
    /// All of them.
    pub fn spellings(&self) -> Vec<&'static str> {
        let always = [self.open, self.close, self.named, self.function_end, self.parameter, self.value_end];
        always.into_iter().chain(self.function).chain(self.value).collect()
    }
}

/// Reads the calls behind [`ParameterMarks::open`].
#[derive(Clone, Debug)]
pub(super) struct ParameterCalls {
    marks: &'static ParameterMarks,
    tools: Arc<[Tool]>,
    /// The function that is called.
    function: String,
    /// The call has a parameter.
    has_parameter: bool,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// Expects a function or, `after` one, the end.
    Open {
        reader: MarkReader,
        after: bool,
    },
    Function(NameReader),
    /// A function's name that nothing but what follows it ends.
    BareFunction(String),
    /// Expects a parameter, or the end of the call, of which it is known or not that it is one.
    Parameter {
        reader: MarkReader,
        begun: bool,
    },
    Name(NameReader),
    BeforeValue {
        reader: MarkReader,
        name: String,
    },
    Value(ValueReader),
    Ended,
}

impl ParameterCalls {
    /// `tools` tell which parameters are strings.
    pub fn new(marks: &'static ParameterMarks, tools: Arc<[Tool]>) -> ParameterCalls {
        let reader = MarkReader::default();
        let state = match marks.function {
            Some(_) => State::Open { reader, after: false },
            None => State::BareFunction(String::new()),
        };
        ParameterCalls { marks, tools, function: String::new(), has_parameter: false, state }
    }

    /// Behind a parameter's mark or a call's, where `whole` says which of the two.
    fn after_mark(&mut self, whole: usize, begun: bool) -> Told {
        let parameter = whole == 0;
        let rest = if parameter { "" } else { "}" };
        self.state = if parameter {
            State::Name(NameReader::default())
        } else if self.marks.function_end == self.marks.close {
            State::Ended
        } else {
            State::Open { reader: MarkReader::default(), after: true }
        };
        match (begun, parameter) {
            (false, _) => self.begin(format!("{{{rest}")),
            (true, true) => Told::Nothing,
            (true, false) => Told::Arguments(rest.to_owned()),
        }
    }

    fn begin(&mut self, arguments: String) -> Told {
        self.has_parameter = false;
        Told::Begins { name: self.function.clone(), arguments }
    }

    /// Begins the value of the parameter `name`.
    fn begin_value(&mut self, name: &str) -> Told {
        let tool = self.tools.iter().find(|tool| tool.name == self.function);
        let types = ParameterTypes::of(tool.and_then(|tool| tool.parameters.as_ref()), name);
        let comma = if std::mem::replace(&mut self.has_parameter, true) { ", " } else { "" };
        let quote = if types.is_text() { "\"" } else { "" };
        self.state = State::Value(ValueReader::new(self.marks, types));
        Told::Arguments(format!("{comma}{}: {quote}", json!(name)))
    }
}

impl Section for ParameterCalls {
    fn push(&mut self, c: char) -> Result<Told, Broken> {
        let marks = self.marks;
        let mut told = Told::Nothing;
        match &mut self.state {
            State::Open { reader, after } => {
                let expected = [marks.close, marks.function.unwrap_or_default()];
                match reader.push(c, &expected[usize::from(!*after)..])? {
                    Some(0) if *after => self.state = State::Ended,
                    Some(_) => self.state = State::Function(NameReader::default()),
                    None => {}
                }
            }
            State::Function(reader) => {
                if let Some(name) = reader.push(c, marks.named)? {
                    self.function = name;
                    self.state = State::Parameter { reader: MarkReader::default(), begun: true };
                    told = self.begin("{".to_owned());
                }
            }
            State::BareFunction(name) if name.is_empty() && c.is_ascii_whitespace() => {}
            State::BareFunction(name) if c.is_ascii_alphanumeric() || "_-.".contains(c) => {
                name.push(c);
                if name.len() > LONGEST_NAME {
                    return Err(Broken);
                }
            }
            State::BareFunction(name) => {
                if name.is_empty() || !(c == '\n' || c == '<') {
                    return Err(Broken);
                }
                self.function = std::mem::take(name);
                let mut reader = MarkReader::default();
                reader.push(c, &[marks.parameter, marks.function_end])?;
                self.state = State::Parameter { reader, begun: false };
            }
            State::Parameter { reader, begun } => {
                let begun = *begun;
                if let Some(whole) = reader.push(c, &[marks.parameter, marks.function_end])? {
                    told = self.after_mark(whole, begun);
                }
            }
            State::Name(reader) => {
                if let Some(name) = reader.push(c, marks.named)? {
                    match marks.value {
                        Some(_) => self.state = State::BeforeValue { reader: MarkReader::default(), name },
                        None => told = self.begin_value(&name),
                    }
                }
            }
            State::BeforeValue { reader, name } => {
                if reader.push(c, &[marks.value.unwrap_or_default()])?.is_some() {
                    let name = std::mem::take(name);
                    told = self.begin_value(&name);
                }
            }
            State::Value(value) => {
                if let Some(arguments) = value.push(c) {
                    told = Told::Arguments(arguments);
                }
                if value.is_ended() {
                    self.state = State::Parameter { reader: MarkReader::default(), begun: true };
                }
            }
            State::Ended => return Err(Broken),
        }
        Ok(told)
    }

    fn place(&self) -> Place {
        match &self.state {
            State::Open { after: true, .. } => Place::After,
            State::Open { .. }
            | State::Function(_)
            | State::BareFunction(_)
            | State::Parameter { begun: false, .. } => Place::Before,
            State::Parameter { .. } | State::Name(_) | State::BeforeValue { .. } | State::Value(_) => {
                Place::Within
            }
            State::Ended => Place::Ended,
        }
    }

    fn rest(&mut self, cut: bool) -> String {
        if let State::Value(value) = &mut self.state { value.rest(cut) } else { String::new() }
    }
}
