//! Tool calls as JSON objects behind a tag: what Hermes and Mistral have in common.

use super::call_object::{CallObject, Told};
use super::json_scanner::Broken;
use super::{CallParser, Said, Step};
use crate::tag_finder::TagFinder;

/// How a family marks its calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// Stands before a call, or before a list of calls.
    pub open: &'static str,
    /// Stands after it.
    pub close: &'static str,
    /// Behind `open` stands a JSON array of calls.
    pub list: bool,
}

/// Finds the calls. Whitespace around marks and calls belongs to neither text nor call.
///
/// A call is one as soon as its name and the beginning of its arguments are known: before that, what turns out to be
/// something else comes out as text, tag and all. Arguments that break off after it stay as they are, as in an answer
/// that is cut, and what follows the break is text. So nothing is ever taken back, and nothing
/// lost but the beginning of a call, or of its mark, in an answer that is cut.
#[derive(Debug)]
pub(super) struct TaggedJson {
    marks: Marks,
    finder: TagFinder,
    place: Place,
    /// Text since the last call began or ended that is out neither as text nor as a call.
    held: String,
    /// Characters of the text that were looked at.
    seen: usize,
    /// Nothing but whitespace came after the last call.
    after_call: bool,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Place {
    Text,
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

impl TaggedJson {
    pub fn new(marks: Marks) -> TaggedJson {
        TaggedJson {
            marks,
            finder: TagFinder::new(marks.open),
            place: Place::Text,
            held: String::new(),
            seen: 0,
            after_call: false,
            steps: Vec::new(),
        }
    }

    /// Looks for the next opening mark; gives what follows it.
    fn text<'a>(&mut self, piece: &'a str) -> &'a str {
        let sought = self.finder.push(piece);
        let rest = sought.found.as_ref().map_or("", |(_, rest)| *rest);
        self.seen += piece[..piece.len() - rest.len()].chars().count();
        let tag = sought.found.map(|(tag, _)| tag);
        let unsaid = tag.as_ref().map_or(self.finder.held(), String::len);
        self.say_text(sought.before, self.seen - unsaid);
        if let Some(tag) = tag {
            self.held = tag;
            self.place = Place::Before { bracket: self.marks.list };
        }
        rest
    }

    /// Takes a character of a call and what is around it; broken if it does not belong there.
    fn call_char(&mut self, c: char) -> Result<(), Broken> {
        self.held.push(c);
        match &mut self.place {
            Place::Before { bracket } if c == '[' && *bracket => *bracket = false,
            Place::Before { bracket: false } if c == '{' => {
                let mut call = CallObject::default();
                call.push(c)?;
                self.place = Place::Call(call);
            }
            Place::Call(call) => {
                let told = call.push(c)?;
                let ended = call.is_ended();
                self.told(told, c);
                if ended {
                    self.held.clear();
                    self.place = Place::After { matched: 0 };
                }
            }
            Place::After { matched } if self.marks.close[*matched..].starts_with(c) => {
                *matched += 1;
                if *matched == self.marks.close.len() {
                    self.held.clear();
                    self.after_call = true;
                    self.place = Place::Text;
                }
            }
            Place::After { matched: 0 } if c == ',' && self.marks.list => {
                self.place = Place::Before { bracket: false };
            }
            Place::Before { .. } | Place::After { matched: 0 } if c.is_ascii_whitespace() => {}
            _ => return Err(Broken),
        }
        Ok(())
    }

    fn told(&mut self, told: Told, c: char) {
        let end = self.seen + 1;
        match told {
            Told::Nothing => {}
            Told::Begins { name, arguments } => {
                self.steps.push(Step { said: Said::CallBegins { name }, end });
                self.steps.push(Step { said: Said::Arguments(arguments), end });
                self.held.clear();
            }
            Told::Argument => {
                self.held.clear();
                match self.steps.last_mut() {
                    Some(Step { said: Said::Arguments(arguments), end: last }) => {
                        arguments.push(c);
                        *last = end;
                    }
                    _ => self.steps.push(Step { said: Said::Arguments(c.into()), end }),
                }
            }
        }
    }

    fn say_text(&mut self, text: String, end: usize) {
        if text.is_empty() {
            return;
        }
        self.after_call = false;
        match self.steps.last_mut() {
            Some(Step { said: Said::Text(before), end: last }) => {
                before.push_str(&text);
                *last = end;
            }
            _ => self.steps.push(Step { said: Said::Text(text), end }),
        }
    }

    /// What was held turns out to be text.
    fn give_up(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.say_text(held, self.seen);
        self.place = Place::Text;
    }
}

impl CallParser for TaggedJson {
    fn push(&mut self, piece: &str) -> Vec<Step> {
        let mut rest = piece;
        while let Some(c) = rest.chars().next() {
            if matches!(self.place, Place::Text) {
                rest = self.text(rest);
            } else if self.call_char(c).is_ok() {
                self.seen += 1;
                rest = &rest[c.len_utf8()..];
            } else {
                // It is looked at again, as text.
                self.held.pop();
                self.give_up();
            }
        }
        std::mem::take(&mut self.steps)
    }

    fn is_within_call(&self) -> bool {
        matches!(&self.place, Place::Call(call) if call.has_begun())
    }

    fn finish(&mut self, cut: bool) -> Vec<Step> {
        match self.place {
            Place::Text if cut && self.finder.has_begun() => drop(self.finder.finish()),
            Place::Text => {
                let held = self.finder.finish();
                if !(self.after_call && held.trim().is_empty()) {
                    self.say_text(held, self.seen);
                }
            }
            Place::Before { .. } | Place::Call(_) if !cut => self.give_up(),
            // Of a call that was cut, what nobody can use; of a whole one, the beginning of its closing mark.
            Place::Before { .. } | Place::Call(_) | Place::After { .. } => self.held.clear(),
        }
        std::mem::take(&mut self.steps)
    }
}
