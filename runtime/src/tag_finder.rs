//! Finds a tag, such as `<think>`, in text that comes in pieces.

/// Looks for one tag and the whitespace before it. Its first character must occur nowhere else in it.
#[derive(Debug)]
pub struct TagFinder {
    tag: &'static str,
    /// Whitespace, and after it what may become the tag.
    held: String,
    /// Bytes of the tag at the end of `held`.
    matched: usize,
}

/// What a piece of text led to.
#[derive(Debug, PartialEq, Eq)]
pub struct Sought<'a> {
    /// Text that does not belong to the tag.
    pub before: String,
    /// The tag with the whitespace before it, and what follows in the piece.
    pub found: Option<(String, &'a str)>,
}

impl TagFinder {
    /// Looks for `tag`.
    pub fn new(tag: &'static str) -> TagFinder {
        debug_assert!(tag.chars().filter(|c| tag.starts_with(*c)).count() == 1);
        TagFinder { tag, held: String::new(), matched: 0 }
    }

    /// Adds a piece. After a find it looks for the next one.
    pub fn push<'a>(&mut self, piece: &'a str) -> Sought<'a> {
        let mut before = String::new();
        for (at, c) in piece.char_indices() {
            if self.matched > 0 && !self.tag[self.matched..].starts_with(c) {
                before.push_str(&self.finish());
            }
            if self.tag[self.matched..].starts_with(c) {
                self.held.push(c);
                self.matched += c.len_utf8();
                if self.matched == self.tag.len() {
                    return Sought { before, found: Some((self.finish(), &piece[at + c.len_utf8()..])) };
                }
            } else if c.is_ascii_whitespace() {
                self.held.push(c);
            } else {
                before.push_str(&self.finish());
                before.push(c);
            }
        }
        Sought { before, found: None }
    }

    /// Characters that are held back.
    pub fn held(&self) -> usize {
        self.held.len() - self.matched + self.tag[..self.matched].chars().count()
    }

    /// The tag may have begun.
    pub fn has_begun(&self) -> bool {
        self.matched > 0
    }

    /// Nothing follows: what was held back is text after all.
    pub fn finish(&mut self) -> String {
        self.matched = 0;
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_however_it_is_split() {
        for tag in ["<end>", "<｜end>"] {
            a_tag_is_found(tag);
        }
    }

    fn a_tag_is_found(tag: &'static str) {
        let text = format!("é <b \n <{tag}rest");
        for size in 1..text.len() {
            let mut finder = TagFinder::new(tag);
            let (mut before, mut after, mut found) = (String::new(), String::new(), None);
            let chars: Vec<char> = text.chars().collect();
            for piece in chars.chunks(size).map(|piece| piece.iter().collect::<String>()) {
                if found.is_some() {
                    after.push_str(&piece);
                    continue;
                }
                let sought = finder.push(&piece);
                before.push_str(&sought.before);
                if let Some((tag, rest)) = sought.found {
                    found = Some(tag);
                    after.push_str(rest);
                }
            }
            assert_eq!((before.as_str(), after.as_str()), ("é <b \n <", "rest"), "pieces of {size}");
            assert_eq!(found.as_deref(), Some(tag));
        }
    }

    #[test]
    fn whitespace_before_the_tag_belongs_to_it() {
        let mut finder = TagFinder::new("<end>");
        assert_eq!(finder.push("a \n").before, "a");
        assert_eq!(finder.held(), 2);
        assert_eq!(finder.push("b\n\n<").before, " \nb");
        let sought = finder.push("end>");
        assert_eq!(sought, Sought { before: String::new(), found: Some(("\n\n<end>".into(), "")) });
        finder.push(" <en");
        assert_eq!(finder.finish(), " <en");
    }
}
