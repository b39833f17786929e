//! How deep regular expressions and the terminals of a Lark grammar are nested. llguidance's work grows with the cube
//! of that depth where repetitions are nested, outside of its own limits: a grammar of 64 KiB can take it 20 seconds.

use super::GrammarError;
use regex_syntax::ast;
use regex_syntax::ast::parse::ParserBuilder;
use serde_json::{Deserializer, Value};
use std::collections::HashMap;

/// Levels of a regular expression; a group with a repetition of a sequence is three.
const DEEPEST_REGEX: u32 = 128;
/// Levels of a terminal: groups and terminals in it, and what is in those.
const DEEPEST_TERMINAL: usize = 64;

/// Refuses an expression that is too deep. One that is wrong in another way is left to the compiler.
pub(super) fn check_regex(what: &'static str, expression: &str) -> Result<(), GrammarError> {
    match ParserBuilder::new().nest_limit(DEEPEST_REGEX).build().parse(expression) {
        Err(error) if matches!(error.kind(), ast::ErrorKind::NestLimitExceeded(_)) => {
            Err(GrammarError::TooDeep { what, limit: DEEPEST_REGEX as usize })
        }
        _ => Ok(()),
    }
}

/// Refuses a grammar of which a terminal is too deep, or a schema (`%json`) that `schema` refuses.
pub(super) fn check_lark(
    text: &str,
    schema: &mut dyn FnMut(&Value) -> Result<(), GrammarError>,
) -> Result<(), GrammarError> {
    let mut scan = Scan { rest: text, line_start: true, depth: 0, terminal: None, terminals: HashMap::new() };
    while scan.step(schema)? {}
    let mut known = HashMap::new();
    scan.terminals.keys().try_for_each(|name| depth(name, 0, &scan.terminals, &mut known).map(drop))
}

/// What one terminal is made of.
#[derive(Default)]
struct Terminal<'a> {
    /// Levels of groups.
    groups: usize,
    /// Terminals in it, and at which level.
    parts: HashMap<&'a str, usize>,
}

/// Levels of `name`, which stands `above` levels deep itself. `known` has those that were looked at; of a circle, which
/// the compiler refuses, a terminal counts nothing inside itself.
fn depth<'a>(
    name: &'a str,
    above: usize,
    terminals: &HashMap<&'a str, Terminal<'a>>,
    known: &mut HashMap<&'a str, usize>,
) -> Result<usize, GrammarError> {
    let Some(terminal) = terminals.get(name) else { return Ok(0) };
    let levels = match known.get(name) {
        Some(levels) => *levels,
        None => {
            known.insert(name, 0);
            let mut levels = terminal.groups;
            for (part, level) in &terminal.parts {
                within(above + level)?;
                levels = levels.max(level + depth(part, above + level, terminals, known)?);
            }
            known.insert(name, levels);
            levels
        }
    };
    within(above + levels).map(|()| levels)
}

fn within(levels: usize) -> Result<(), GrammarError> {
    if levels > DEEPEST_TERMINAL {
        Err(GrammarError::TooDeep { what: "a terminal of the grammar", limit: DEEPEST_TERMINAL })
    } else {
        Ok(())
    }
}

/// Reads a Lark grammar as far as nesting goes; a name at the beginning of a line defines it.
struct Scan<'a> {
    rest: &'a str,
    line_start: bool,
    depth: usize,
    /// The terminal that is being defined; none in a rule.
    terminal: Option<&'a str>,
    terminals: HashMap<&'a str, Terminal<'a>>,
}

impl<'a> Scan<'a> {
    /// Reads one token; false at the end.
    fn step(
        &mut self,
        schema: &mut dyn FnMut(&Value) -> Result<(), GrammarError>,
    ) -> Result<bool, GrammarError> {
        let text = self.rest;
        let Some(first) = text.chars().next() else { return Ok(false) };
        let length = match first {
            '\n' => {
                self.line_start = true;
                self.rest = &text[1..];
                return Ok(true);
            }
            ' ' | '\t' | '\r' => {
                self.rest = &text[1..];
                return Ok(true);
            }
            // Marks before a rule's name.
            '?' | '!' if self.line_start => {
                self.rest = &text[1..];
                return Ok(true);
            }
            '#' => line(text),
            '/' if text.starts_with("//") => line(text),
            '/' => self.regex(text)?,
            '"' => quoted(text, '"'),
            '<' => text.find(['>', '\n']).map_or(text.len(), |end| end + 1),
            '%' => {
                if self.line_start {
                    (self.terminal, self.depth) = (None, 0);
                }
                directive(text, schema)?
            }
            '(' | '[' => {
                self.depth += 1;
                let depth = self.depth;
                if let Some(terminal) = self.defined() {
                    terminal.groups = terminal.groups.max(depth);
                }
                1
            }
            ')' | ']' => {
                self.depth = self.depth.saturating_sub(1);
                1
            }
            letter if letter == '_' || letter.is_ascii_alphabetic() => self.name(text),
            other => other.len_utf8(),
        };
        self.line_start = false;
        self.rest = &text[length..];
        Ok(true)
    }

    fn defined(&mut self) -> Option<&mut Terminal<'a>> {
        self.terminals.get_mut(self.terminal?)
    }

    fn name(&mut self, text: &'a str) -> usize {
        let inside = |c: char| c == '_' || c == '-' || c.is_ascii_alphanumeric();
        let name = &text[..text.find(|c| !inside(c)).unwrap_or(text.len())];
        let is_terminal = name.trim_start_matches('_').starts_with(|c: char| c.is_ascii_uppercase());
        if self.line_start {
            (self.terminal, self.depth) = (is_terminal.then_some(name), 0);
            if is_terminal {
                self.terminals.entry(name).or_default();
            }
        } else if is_terminal {
            let level = self.depth + 1;
            if let Some(terminal) = self.defined() {
                let deepest = terminal.parts.entry(name).or_default();
                *deepest = level.max(*deepest);
            }
        }
        name.len()
    }

    /// A regular expression and its flags.
    fn regex(&mut self, text: &str) -> Result<usize, GrammarError> {
        let end = quoted(text, '/');
        let flags = text[end..].find(|c: char| !c.is_ascii_lowercase()).unwrap_or(text.len() - end);
        let opened = text[..end].strip_prefix('/').unwrap_or_default();
        let expression = opened.strip_suffix('/').unwrap_or(opened);
        let flagged = match &text[end..end + flags] {
            "" => expression.to_owned(),
            flags => format!("(?{flags}){expression}"),
        };
        check_regex("a regular expression of the grammar", &flagged)?;
        Ok(end + flags)
    }
}

fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// Bytes up to and with the second `mark` that no backslash precedes.
fn quoted(text: &str, mark: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == mark && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// A directive, with the JSON that belongs to it.
fn directive(
    text: &str,
    schema: &mut dyn FnMut(&Value) -> Result<(), GrammarError>,
) -> Result<usize, GrammarError> {
    let word = 1 + text[1..].find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len() - 1);
    if !matches!(&text[..word], "%json" | "%regex" | "%llguidance") {
        return Ok(word);
    }
    let mut values = Deserializer::from_str(&text[word..]).into_iter::<Value>();
    // What is no JSON is left to the compiler.
    let Some(Ok(value)) = values.next() else { return Ok(word) };
    if &text[..word] == "%json" {
        schema(&value)?;
    }
    Ok(word + values.byte_offset())
}
