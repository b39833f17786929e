//! Finds tool calls that stand between marks: what all families but GPT-OSS have in common.

use super::found::Found;
use super::json_scanner::Broken;
use super::{CallParser, Step};
use crate::tag_finder::TagFinder;
use std::fmt::Debug;

/// Reads what stands behind an opening mark, up to the closing one: one call or several.
pub(super) trait Section: Debug + Send {
    /// Takes the next character; broken if it does not belong there. Once broken or ended, no more may be added.
    fn push(&mut self, c: char) -> Result<Told, Broken>;
    /// Where the next character stands.
    fn place(&self) -> Place;
    /// Nothing follows: what came of the arguments and is not told yet. Where the text was `cut`, without what may have
    /// become a mark.
    fn rest(&mut self, _cut: bool) -> String {
        String::new()
    }
}

/// What a character told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    /// This is a call; `arguments` is the beginning of them, or all.
    Begins {
        name: String,
        arguments: String,
    },
    /// The character belongs to the arguments of a call that has begun.
    Argument,
    /// This follows in the arguments of a call that has begun.
    Arguments(String),
}

/// A place in a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is not known yet what is called.
    Before,
    /// A call has begun and is not whole.
    Within,
    /// The arguments are whole; the mark that closes the call comes next.
    Closing,
    /// A call is whole; another one may follow, or the closing mark.
    After,
    /// Behind the closing mark.
    Ended,
}

/// Finds sections of calls. Whitespace around marks and calls belongs to neither text nor call.
///
/// A call is one as soon as its name and the beginning of its arguments are known: before that, what turns out to be
/// something else comes out as text, marks and all. Arguments that break off after it stay as they are, as in an answer
/// that is cut, and what follows the break is text. So nothing is ever taken back, and nothing
/// lost but the beginning of a call, or of its mark, in an answer that is cut.
#[derive(Debug)]
pub(super) struct Tagged<S> {
    open: &'static str,
    finder: TagFinder,
    /// A section before its first character.
    empty: S,
    /// The section that is being read.
    section: Option<S>,
    /// Text since the last call began or ended that is out neither as text nor as a call.
    held: String,
    /// Characters of the text that were looked at.
    seen: usize,
    /// Nothing but whitespace came after the last call.
    after_call: bool,
    found: Found,
}

impl<S: Section + Clone> Tagged<S> {
    /// Looks for `open`; behind it stands a `section`, as it is before its first character.
    pub fn new(open: &'static str, section: S) -> Tagged<S> {
        Tagged {
            open,
            finder: TagFinder::new(open),
            empty: section,
            section: None,
            held: String::new(),
            seen: 0,
            after_call: false,
            found: Found::default(),
        }
    }

    /// Looks for the next opening mark; gives what follows it.
    fn text<'a>(&mut self, piece: &'a str) -> &'a str {
        let sought = self.finder.push(piece);
        let rest = sought.found.as_ref().map_or("", |(_, rest)| *rest);
        self.seen += piece[..piece.len() - rest.len()].chars().count();
        let tag = sought.found.map(|(tag, _)| tag);
        let unsaid = tag.as_ref().map_or_else(|| self.finder.held(), |tag| tag.chars().count());
        self.say_text(sought.before, self.seen - unsaid);
        if let Some(tag) = tag {
            self.held = tag;
            self.section = Some(self.empty.clone());
        }
        rest
    }

    fn told(&mut self, told: Told, c: char) {
        let end = self.seen + 1;
        match told {
            Told::Nothing => return,
            Told::Begins { name, arguments } => {
                self.found.call(name, end);
                self.found.arguments(&arguments, end);
            }
            Told::Argument => self.found.arguments(c.encode_utf8(&mut [0; 4]), end),
            Told::Arguments(arguments) => self.found.arguments(&arguments, end),
        }
        self.held.clear();
    }

    fn say_text(&mut self, text: String, end: usize) {
        if !text.is_empty() {
            self.after_call = false;
            self.found.text(text, end);
        }
    }

    /// What was held turns out to be text, but for the beginning of the next opening mark at its end.
    fn give_up(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        let first = self.open.chars().next().unwrap_or_default();
        let begins = |at: &usize| held.len() - at < self.open.len() && self.open.starts_with(&held[*at..]);
        let begun = held.rfind(first).filter(begins);
        let begun = begun.map(|at| held.split_off(at)).unwrap_or_default();
        self.say_text(held, self.seen - begun.chars().count());
        self.finder.push(&begun);
        self.section = None;
    }
}

impl<S: Section + Clone> CallParser for Tagged<S> {
    fn push(&mut self, piece: &str) -> Vec<Step> {
        let mut rest = piece;
        while let Some(c) = rest.chars().next() {
            let Some(section) = &mut self.section else {
                rest = self.text(rest);
                continue;
            };
            let before = section.place();
            let Ok(told) = section.push(c) else {
                // The character is looked at again, as text.
                self.give_up();
                continue;
            };
            let place = section.place();
            self.held.push(c);
            self.told(told, c);
            if place != before && matches!(place, Place::Closing | Place::After | Place::Ended) {
                self.held.clear();
            }
            if place == Place::Ended {
                self.section = None;
                self.after_call = true;
            }
            self.seen += 1;
            rest = &rest[c.len_utf8()..];
        }
        self.found.take()
    }

    fn is_within_call(&self) -> bool {
        self.section.as_ref().is_some_and(|section| section.place() == Place::Within)
    }

    fn finish(&mut self, cut: bool) -> Vec<Step> {
        let place = self.section.as_ref().map(Section::place);
        let rest = self.section.as_mut().map(|section| section.rest(cut)).filter(|rest| !rest.is_empty());
        match place {
            None if cut && self.finder.has_begun() => drop(self.finder.finish()),
            None => {
                let held = self.finder.finish();
                if !(self.after_call && held.trim().is_empty()) {
                    self.say_text(held, self.seen);
                }
            }
            Some(_) if rest.is_some() => self.found.arguments(&rest.unwrap_or_default(), self.seen),
            Some(Place::Before | Place::Within) if !cut => {
                self.give_up();
                let begun = self.finder.finish();
                self.say_text(begun, self.seen);
            }
            // Of a call that was cut, what nobody can use; of a whole one, the beginning of its closing mark.
            Some(_) => self.held.clear(),
        }
        self.found.take()
    }
}
