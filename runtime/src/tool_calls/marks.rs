//! Marks, read a character at a time.

use super::json_scanner::Broken;

/// Reads one of several marks, with whitespace before it.
#[derive(Clone, Debug, Default)]
pub(super) struct MarkReader {
    begun: String,
}

impl MarkReader {
    /// Takes the next character. Gives the place in `marks` of the one that is whole, and begins again; broken if the
    /// text is none of them any more. None may be the beginning of another.
    pub fn push(&mut self, c: char, marks: &[&str]) -> Result<Option<usize>, Broken> {
        if self.begun.is_empty() && c.is_ascii_whitespace() {
            return Ok(None);
        }
        self.begun.push(c);
        if !marks.iter().any(|mark| mark.starts_with(self.begun.as_str())) {
            return Err(Broken);
        }
        let whole = marks.iter().position(|mark| *mark == self.begun);
        if whole.is_some() {
            self.begun.clear();
        }
        Ok(whole)
    }
}

/// Longest name of a function or a parameter, bytes; what has none by then is no call.
pub(super) const LONGEST_NAME: usize = 256;

/// Reads a name up to a mark.
#[derive(Clone, Debug, Default)]
pub(super) struct NameReader {
    read: String,
}

impl NameReader {
    /// Takes the next character. Gives the name, without whitespace around it, once `mark` is whole; broken where it is
    /// empty, too long, of several lines or with a tag in it.
    pub fn push(&mut self, c: char, mark: &str) -> Result<Option<String>, Broken> {
        self.read.push(c);
        if self.read.len() > LONGEST_NAME + mark.len() {
            return Err(Broken);
        }
        let Some(name) = self.read.strip_suffix(mark) else { return Ok(None) };
        let name = name.trim();
        if name.is_empty() || name.contains(['\n', '<']) {
            return Err(Broken);
        }
        Ok(Some(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_that_comes_is_told() {
        let read = |text: &str| {
            let mut reader = MarkReader::default();
            text.chars().map(|c| reader.push(c, &["<a>", "<ab>"])).collect::<Result<Vec<_>, Broken>>()
        };
        assert_eq!(read(" \n<ab>"), Ok(vec![None, None, None, None, None, Some(1)]));
        assert_eq!(read("<a><a").map(|told| told.iter().flatten().count()), Ok(1));
        assert_eq!(read("< a>"), Err(Broken));
        assert_eq!(read("x"), Err(Broken));
    }

    #[test]
    fn a_name_is_short_and_of_one_line() {
        let read = |text: &str| {
            let mut reader = NameReader::default();
            text.chars().map(|c| reader.push(c, "\">")).collect::<Result<Vec<_>, Broken>>()
        };
        assert_eq!(read(" f\">").unwrap().pop().unwrap().as_deref(), Some("f"));
        for text in
            [" \">".to_owned(), "f\ng\">".to_owned(), "<f\">".to_owned(), "x".repeat(LONGEST_NAME + 3)]
        {
            assert_eq!(read(&text), Err(Broken), "{text}");
        }
    }
}
