//! One call as a JSON object, `{"name": …, "arguments": {…}}`, while it comes.

use super::json_scanner::{Broken, JsonScanner, Within};
use super::tagged::Told;

/// Reads one call. Its arguments are passed on as they come, in the characters that were generated; only arguments
/// that come before the name have to wait for it. Fields of other names are skipped.
#[derive(Clone, Debug, Default)]
pub(super) struct CallObject {
    scanner: JsonScanner,
    field: Field,
    /// The key or the name that is being read, with its quotes.
    word: String,
    name: Option<String>,
    /// The arguments so far; not added to any more once the call has begun.
    arguments: Option<String>,
    begun: bool,
}

/// The field whose value comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Field {
    #[default]
    Other,
    Name,
    Arguments,
}

impl CallObject {
    /// Takes the next character, the first one is `{`. Once broken or ended, no more may be added.
    pub fn push(&mut self, c: char) -> Result<Told, Broken> {
        let key_before = self.at_key();
        self.scanner.push(c)?;
        if self.scanner.is_ended() {
            return self.end();
        }
        if key_before || self.at_key() {
            self.word.push(c);
            if !self.at_key() {
                self.field = self.field_of_key()?;
            }
            return Ok(Told::Nothing);
        }
        let before_value = c == ':' || c.is_ascii_whitespace();
        match self.field {
            Field::Name if self.word.is_empty() && before_value => Ok(Told::Nothing),
            Field::Arguments if self.arguments.is_none() && before_value => Ok(Told::Nothing),
            Field::Name => self.name_char(c),
            Field::Arguments => self.argument_char(c),
            Field::Other => Ok(Told::Nothing),
        }
    }

    /// The object is whole.
    pub fn is_ended(&self) -> bool {
        self.scanner.is_ended()
    }

    /// It is known what is called.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// In a key of the call itself.
    fn at_key(&self) -> bool {
        self.scanner.depth() == 1 && self.scanner.within() == Within::Key
    }

    /// The first of two fields with the same name counts.
    fn field_of_key(&mut self) -> Result<Field, Broken> {
        Ok(match self.taken_word()?.as_str() {
            "name" if self.name.is_none() => Field::Name,
            "arguments" if self.arguments.is_none() => Field::Arguments,
            _ => Field::Other,
        })
    }

    fn taken_word(&mut self) -> Result<String, Broken> {
        serde_json::from_str(&std::mem::take(&mut self.word)).map_err(|_| Broken)
    }

    fn name_char(&mut self, c: char) -> Result<Told, Broken> {
        if self.word.is_empty() && c != '"' {
            return Err(Broken);
        }
        self.word.push(c);
        if self.scanner.within() == Within::Text {
            return Ok(Told::Nothing);
        }
        self.field = Field::Other;
        let name = self.taken_word()?;
        if name.is_empty() {
            return Err(Broken);
        }
        self.name = Some(name.clone());
        Ok(match &self.arguments {
            Some(arguments) => self.begin(name, arguments.clone()),
            None => Told::Nothing,
        })
    }

    fn argument_char(&mut self, c: char) -> Result<Told, Broken> {
        if self.scanner.depth() == 1 {
            // Either it has ended, or it is no object.
            if self.arguments.is_none() {
                return Err(Broken);
            }
            self.field = Field::Other;
        }
        if self.begun {
            return Ok(Told::Argument);
        }
        match (&mut self.arguments, &self.name) {
            (Some(arguments), _) => arguments.push(c),
            (None, _) if c != '{' => return Err(Broken),
            (None, None) => self.arguments = Some(c.into()),
            (None, Some(name)) => {
                self.arguments = Some(c.into());
                return Ok(self.begin(name.clone(), c.into()));
            }
        }
        Ok(Told::Nothing)
    }

    /// A call without arguments is one with none.
    fn end(&mut self) -> Result<Told, Broken> {
        match self.name.clone() {
            None => Err(Broken),
            Some(_) if self.begun => Ok(Told::Nothing),
            Some(name) => Ok(self.begin(name, "{}".to_owned())),
        }
    }

    fn begin(&mut self, name: String, arguments: String) -> Told {
        self.begun = true;
        Told::Begins { name, arguments }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name and arguments, if it is a whole call.
    fn read(text: &str) -> Option<(String, String)> {
        let mut call = CallObject::default();
        let mut found: Option<(String, String)> = None;
        for c in text.chars() {
            match call.push(c).ok()? {
                Told::Nothing => {}
                Told::Begins { name, arguments } => assert!(found.replace((name, arguments)).is_none()),
                Told::Argument => found.as_mut()?.1.push(c),
                Told::Arguments(_) => panic!("its arguments come as they were generated"),
            }
        }
        found.filter(|_| call.is_ended())
    }

    #[test]
    fn a_call_is_read_in_every_order_and_spelling() {
        let whole = |name: &str, arguments: &str| Some((name.to_owned(), arguments.to_owned()));
        for (text, expected) in [
            (
                r#"{"name": "f", "arguments": {"a": [1, {"name": "x"}]}}"#,
                whole("f", r#"{"a": [1, {"name": "x"}]}"#),
            ),
            (r#"{"arguments":{ "a" : "}" },"name":"f"}"#, whole("f", r#"{ "a" : "}" }"#)),
            (
                r#"{"id":"x1","na\u006de":"f\u00e9","arguments":{},"name":"g","arguments":{"b":1}}"#,
                whole("fé", "{}"),
            ),
            (r#"{"name": "now"}"#, whole("now", "{}")),
            (r#"{"meta": {"name": "no"}, "name": "f", "arguments": {}}"#, whole("f", "{}")),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn other_objects_are_no_calls() {
        for text in [
            "{}",
            r#"{"arguments": {}}"#,
            r#"{"name": 5, "arguments": {}}"#,
            r#"{"name": "", "arguments": {}}"#,
            r#"{"name": {"x": 1}}"#,
            r#"{"name": "f", "arguments": []}"#,
            r#"{"name": "f", "arguments": "{}"}"#,
            r#"{"name": "f", "arguments": 5}"#,
            r#"{"name": "f", "arguments": {}"#,
            r#"["name"]"#,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn arguments_are_passed_on_once_the_name_is_known() {
        let mut call = CallObject::default();
        let told: Vec<Told> = r#"{"name":"f","arguments":{"#.chars().map(|c| call.push(c).unwrap()).collect();
        let begins = Told::Begins { name: "f".into(), arguments: "{".into() };
        assert_eq!(told.iter().position(|told| *told == begins), Some(told.len() - 1));
        assert_eq!(call.push('"'), Ok(Told::Argument));
    }
}
