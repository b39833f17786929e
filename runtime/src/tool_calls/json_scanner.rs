//! Follows JSON text character by character: where in it we are, and whether it can still become valid.

use serde::de::IgnoredAny;

/// Deeper nesting is taken for broken; serde_json's own limit.
const DEEPEST: usize = 128;
/// Longest number or word, bytes.
const LONGEST_SCALAR: usize = 400;

/// The text cannot become valid JSON any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// Where the next character stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    /// Between keys and values.
    Structure,
    /// In the key of an object.
    Key,
    /// In a string that is a value.
    Text,
    /// In a number, `true`, `false` or `null`.
    Scalar,
}

/// Reads one object. Strings may hold raw control characters, line ends above all: JSON forbids them, models write
/// them, and where the string ends is clear all the same.
#[derive(Clone, Debug, Default)]
pub(super) struct JsonScanner {
    open: Vec<Container>,
    expects: Expects,
    text: Option<Text>,
    scalar: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    Object,
    Array,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expects {
    #[default]
    Root,
    FirstKey,
    Key,
    Colon,
    FirstItem,
    Value,
    CommaOrEnd,
    Nothing,
}

/// Inside quotes.
#[derive(Clone, Copy, Debug)]
struct Text {
    is_key: bool,
    escape: Escape,
}

#[derive(Clone, Copy, Debug)]
enum Escape {
    None,
    Backslash,
    /// So many hexadecimal digits are missing.
    Unicode(u8),
}

impl JsonScanner {
    /// Takes the next character. Once broken or ended, no more may be added.
    pub fn push(&mut self, c: char) -> Result<(), Broken> {
        if let Some(text) = self.text {
            return self.text_char(text, c);
        }
        if !self.scalar.is_empty() {
            if c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.') {
                return self.scalar_char(c);
            }
            serde_json::from_str::<IgnoredAny>(&self.scalar).map_err(|_| Broken)?;
            self.scalar.clear();
            self.expects = Expects::CommaOrEnd;
        }
        self.structure_char(c)
    }

    /// Objects and arrays that are open.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    pub fn within(&self) -> Within {
        match self.text {
            Some(Text { is_key: true, .. }) => Within::Key,
            Some(_) => Within::Text,
            None if !self.scalar.is_empty() => Within::Scalar,
            None => Within::Structure,
        }
    }

    /// The object is whole.
    pub fn is_ended(&self) -> bool {
        self.expects == Expects::Nothing
    }

    fn text_char(&mut self, text: Text, c: char) -> Result<(), Broken> {
        let escape = match (text.escape, c) {
            (Escape::None, '"') => {
                self.text = None;
                self.expects = if text.is_key { Expects::Colon } else { Expects::CommaOrEnd };
                return Ok(());
            }
            (Escape::None, '\\') => Escape::Backslash,
            (Escape::None, _) => Escape::None,
            (Escape::Backslash, 'u') => Escape::Unicode(4),
            (Escape::Backslash, '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => Escape::None,
            (Escape::Unicode(1), c) if c.is_ascii_hexdigit() => Escape::None,
            (Escape::Unicode(left), c) if c.is_ascii_hexdigit() => Escape::Unicode(left - 1),
            (Escape::Backslash | Escape::Unicode(_), _) => return Err(Broken),
        };
        self.text = Some(Text { escape, ..text });
        Ok(())
    }

    fn scalar_char(&mut self, c: char) -> Result<(), Broken> {
        self.scalar.push(c);
        if self.scalar.len() > LONGEST_SCALAR { Err(Broken) } else { Ok(()) }
    }

    fn structure_char(&mut self, c: char) -> Result<(), Broken> {
        use Expects::{Colon, CommaOrEnd, FirstItem, FirstKey, Key, Root, Value};
        match (self.expects, c) {
            (_, ' ' | '\n' | '\r' | '\t') => Ok(()),
            (Root | Value | FirstItem, '{') => self.enter(Container::Object),
            (Value | FirstItem, '[') => self.enter(Container::Array),
            (Value | FirstItem, '"') => self.quote(false),
            (Value | FirstItem, '-' | '0'..='9' | 't' | 'f' | 'n') => self.scalar_char(c),
            (FirstKey | Key, '"') => self.quote(true),
            (Colon, ':') => self.expect(Value),
            (CommaOrEnd, ',') => {
                self.expect(if self.open.last() == Some(&Container::Object) { Key } else { Value })
            }
            (FirstKey | CommaOrEnd, '}') => self.leave(Container::Object),
            (FirstItem | CommaOrEnd, ']') => self.leave(Container::Array),
            _ => Err(Broken),
        }
    }

    fn expect(&mut self, next: Expects) -> Result<(), Broken> {
        self.expects = next;
        Ok(())
    }

    fn quote(&mut self, is_key: bool) -> Result<(), Broken> {
        self.text = Some(Text { is_key, escape: Escape::None });
        Ok(())
    }

    fn enter(&mut self, container: Container) -> Result<(), Broken> {
        if self.open.len() == DEEPEST {
            return Err(Broken);
        }
        self.open.push(container);
        self.expect(if container == Container::Object { Expects::FirstKey } else { Expects::FirstItem })
    }

    fn leave(&mut self, container: Container) -> Result<(), Broken> {
        if self.open.pop() != Some(container) {
            return Err(Broken);
        }
        self.expect(if self.open.is_empty() { Expects::Nothing } else { Expects::CommaOrEnd })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The characters that were taken, and whether they were a whole object.
    fn scan(text: &str) -> (usize, bool) {
        let mut scanner = JsonScanner::default();
        for (at, c) in text.chars().enumerate() {
            if scanner.is_ended() || scanner.push(c).is_err() {
                return (at, scanner.is_ended());
            }
        }
        (text.chars().count(), scanner.is_ended())
    }

    #[test]
    fn valid_objects_are_taken_whole() {
        for text in [
            "{}",
            r#" { "a" : [ ] , "b":{"c":[1,-2.5e+3,true,null,"é\"\\\u00e9"]} }"#,
            r#"{"a":[[{}],[{"b":0}]]}"#,
            "{\"code\": \"line\nline\"}",
        ] {
            assert_eq!(scan(text), (text.chars().count(), true), "{text}");
        }
    }

    #[test]
    fn broken_text_is_noticed_where_it_breaks() {
        for (text, at) in [
            ("[1]", 0),
            ("{,", 1),
            (r#"{"a" 1}"#, 5),
            (r#"{"a":}"#, 5),
            (r#"{"a":1,}"#, 7),
            (r#"{"a":[1,]"#, 8),
            (r#"{"a":[1}"#, 7),
            (r#"{"a":1 2"#, 7),
            (r#"{"a":1..2}"#, 9),
            (r#"{"a":nulL}"#, 9),
            (r#"{"a":"\x"}"#, 7),
            (r#"{"a":"\u12g4"}"#, 10),
            (r#"{"a":True}"#, 5),
            ("{'a'", 1),
        ] {
            assert_eq!(scan(text), (at, false), "{text}");
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let nested = |depth: usize| "{\"a\":".repeat(depth - 1) + "{}" + &"}".repeat(depth - 1);
        assert!(scan(&nested(DEEPEST)).1);
        assert!(!scan(&nested(DEEPEST + 1)).1);
        assert!(!scan(&format!("{{\"a\":{}}}", "1".repeat(LONGEST_SCALAR + 1))).1);
    }
}
