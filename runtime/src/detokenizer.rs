//! Bytes of tokens to text, as they come.

/// Turns bytes into text. A character whose bytes are spread over several tokens is held back until it is whole;
/// bytes that can never become a character turn into U+FFFD.
#[derive(Debug, Default)]
pub struct Detokenizer {
    /// The beginning of one character: at most three bytes.
    held: Vec<u8>,
}

impl Detokenizer {
    /// The text that `bytes` complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(whole) => {
                    text.push_str(whole);
                    rest = &[];
                }
                Err(error) => {
                    let (valid, broken) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    match error.error_len() {
                        Some(length) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &broken[length..];
                            continue;
                        }
                        None => rest = broken,
                    }
                }
            }
            self.held = rest.to_vec();
            return text;
        }
    }

    /// Nothing follows: an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_split_of_the_bytes_gives_the_same_text() {
        let text = "a ü 漢字 🦀🇩🇪 end";
        for size in 1..text.len() {
            let mut detokenizer = Detokenizer::default();
            let mut out = String::new();
            for chunk in text.as_bytes().chunks(size) {
                let piece = detokenizer.push(chunk);
                assert!(!piece.contains(char::REPLACEMENT_CHARACTER), "chunks of {size}: {piece:?}");
                out.push_str(&piece);
            }
            assert_eq!(out + &detokenizer.finish(), text);
        }
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        let mut detokenizer = Detokenizer::default();
        assert_eq!(detokenizer.push(&[b'a', 0xff, b'b', 0xc3]), "a\u{fffd}b");
        assert_eq!(detokenizer.push(b"x"), "\u{fffd}x");
        assert_eq!(detokenizer.push(&[0xf0, 0x9f]), "");
        assert_eq!(detokenizer.finish(), "\u{fffd}");
        assert_eq!(detokenizer.finish(), "");
    }
}
