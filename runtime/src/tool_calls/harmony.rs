//! GPT-OSS: harmony, whose answers are messages, each in a channel:
//! `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>`.
//!
//! `analysis` is reasoning, `final` and `commentary` are content, and a message `to=functions.NAME` is a call, with its
//! arguments as JSON before `<|call|>`. The recipient stands behind the role or behind the channel. The prompt has
//! written the first message's `<|start|>assistant`.
//!
//! Source: <https://github.com/openai/harmony>, `docs/format.md`.

use super::found::Found;
use super::harmony_header::{Header, Kind, Read};
use super::json_scanner::{Broken, JsonScanner};
use super::{CallParser, Signs, Step};

pub(super) const START: &str = "<|start|>";
pub(super) const CHANNEL: &str = "<|channel|>";
pub(super) const CONSTRAIN: &str = "<|constrain|>";
pub(super) const MESSAGE: &str = "<|message|>";
pub(super) const END: &str = "<|end|>";
pub(super) const RETURN: &str = "<|return|>";
pub(super) const CALL: &str = "<|call|>";
pub(super) const MARKS: [&str; 7] = [START, CHANNEL, CONSTRAIN, MESSAGE, END, RETURN, CALL];

pub(super) const IN_TEMPLATE: Signs = Signs { present: &[START, CHANNEL, MESSAGE, "analysis"], absent: &[] };

/// Tells the messages of an answer apart.
///
/// Marks that are no message's header come out as they are, in the message around them; so does, as content, a call's
/// message whose body is no JSON object.
#[derive(Debug)]
pub(super) struct Harmony {
    /// Messages to functions are calls, and not content.
    may_call: bool,
    /// What the message is that comes now.
    kind: Kind,
    /// What may become the next header.
    header: Option<Header>,
    /// A call's arguments, once they have begun.
    arguments: Option<JsonScanner>,
    /// Of a call's message, what is out neither as text nor as a call: its header, and whitespace.
    held: String,
    /// Characters of the text before `header`.
    seen: usize,
    found: Found,
}

impl Harmony {
    /// For an answer that may hold calls, or not.
    pub fn new(may_call: bool) -> Harmony {
        Harmony {
            may_call,
            kind: Kind::Content,
            header: Some(Header::of_answer()),
            arguments: None,
            held: String::new(),
            seen: 0,
            found: Found::default(),
        }
    }

    fn char(&mut self, c: char) {
        let mut header = match self.header.take() {
            Some(header) => header,
            None if c == '<' => Header::in_body(),
            None => return self.body_char(c),
        };
        match header.push(c) {
            Read::More => self.header = Some(header),
            Read::Ended => {
                self.header = Some(header);
                self.end_call();
            }
            Read::Whole(kind) => self.begin(kind, header.text()),
            Read::Broken(from) => {
                let (text, again) = header.text().split_at(from);
                text.chars().for_each(|c| self.body_char(c));
                // Shorter than a mark.
                again.chars().for_each(|c| self.char(c));
            }
        }
    }

    /// A header is whole.
    fn begin(&mut self, kind: Kind, header: &str) {
        self.seen += header.chars().count();
        self.held.clear();
        self.arguments = None;
        self.kind = match kind {
            Kind::Call(_) if !self.may_call => Kind::Content,
            kind => kind,
        };
        if let Kind::Call(_) = self.kind {
            self.held.push_str(header);
        } else {
            self.found.message(self.seen);
        }
    }

    /// Takes a character of a message.
    fn body_char(&mut self, c: char) {
        self.seen += 1;
        if let Kind::Call(name) = &self.kind {
            match &mut self.arguments {
                None if c == '{' => {
                    self.found.call(name.clone(), self.seen);
                    self.held.clear();
                }
                Some(scanner) if !scanner.is_ended() => {}
                _ if c.is_ascii_whitespace() => return self.held.push(c),
                _ => return self.no_call(c),
            }
            match self.arguments.get_or_insert_default().push(c) {
                Ok(()) => self.found.arguments(c.encode_utf8(&mut [0; 4]), self.seen),
                Err(Broken) => self.no_call(c),
            }
            return;
        }
        self.say(c.into());
    }

    /// What follows in a call's message is none of it.
    fn no_call(&mut self, c: char) {
        self.kind = Kind::Content;
        self.arguments = None;
        self.held.push(c);
        let held = std::mem::take(&mut self.held);
        self.say(held);
    }

    fn say(&mut self, text: String) {
        match self.kind {
            Kind::Reasoning => self.found.reasoning(text, self.seen),
            _ => self.found.text(text, self.seen),
        }
    }

    /// A message has ended: a call that has no arguments by now has none.
    fn end_call(&mut self) {
        if let (Kind::Call(name), None) = (&self.kind, &self.arguments) {
            self.found.call(name.clone(), self.seen);
            self.found.arguments("{}", self.seen);
            self.kind = Kind::Content;
        }
        self.held.clear();
    }
}

impl CallParser for Harmony {
    fn push(&mut self, piece: &str) -> Vec<Step> {
        piece.chars().for_each(|c| self.char(c));
        self.found.take()
    }

    fn is_within_call(&self) -> bool {
        matches!(self.kind, Kind::Call(_)) && self.arguments.as_ref().is_some_and(|json| !json.is_ended())
    }

    fn is_reasoning(&self) -> bool {
        self.kind == Kind::Reasoning && self.header.as_ref().is_none_or(Header::is_in_body)
    }

    fn finish(&mut self, cut: bool) -> Vec<Step> {
        let header = self.header.take().filter(|header| !header.is_end() && !cut);
        if let Some(header) = &header {
            header.text().chars().for_each(|c| self.body_char(c));
        }
        if !cut {
            self.end_call();
        }
        self.found.take()
    }
}
