//! tokenizer.json: text to tokens, a token to its bytes.

mod growth;
mod token_bytes;

use crate::termination::{failed, model_rejected};
use coterie_api::launch::Termination;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use token_bytes::Spelling;

/// Larger files than any real tokenizer's are refused unread.
const LARGEST_FILE: u64 = 256 << 20;
/// Words that each thread remembers the tokens of: up to 8 KB each, for a word of 255 letters. The library's 10,000
/// would let random words take 80 MB a thread that nobody has planned for.
const REMEMBERED_WORDS: usize = 1000;
/// Bytes of the pieces in which the tokens of a long text are counted.
const PIECE: usize = 16 << 10;

/// A model's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    spelling: Spelling,
    /// Bytes of the longest token.
    longest: usize,
}

/// Text as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// For each token, at which character of the text it begins.
    pub starts: Vec<usize>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` in `dir`.
    pub fn load(dir: &Path) -> Result<Tokenizer, Termination> {
        let path = dir.join("tokenizer.json");
        let Some(bytes) = read_file(&path, LARGEST_FILE)? else {
            return Err(model_rejected(format!(
                "{} is missing; a model folder needs its tokenizer to be served: copy it from where the weights came from",
                path.display()
            )));
        };
        // The parser is not written for hostile files; a panic in it is this file's fault.
        let parsed = catch_unwind(AssertUnwindSafe(|| Tokenizer::from_bytes(&bytes)));
        let broken = |why: String| {
            model_rejected(format!("{} is not a usable tokenizer: {why}; download it again", path.display()))
        };
        parsed.unwrap_or_else(|_| Err("the parser panicked".to_owned())).map_err(broken)
    }

    /// Reads the contents of a `tokenizer.json`.
    pub fn from_bytes(json: &[u8]) -> Result<Tokenizer, String> {
        growth::check(json)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        // Both are for training; in a served model they would silently change the prompt.
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        inner.with_padding(None);
        let mut model = inner.get_model().clone();
        model.resize_cache(REMEMBERED_WORDS);
        inner.with_model(model);
        let spelling = Spelling::of(inner.get_decoder());
        let mut tokenizer = Tokenizer { inner, spelling, longest: 0 };
        let ids = tokenizer.inner.get_vocab(true).into_values();
        tokenizer.longest = ids.map(|id| tokenizer.bytes(id).len()).max().unwrap_or(0);
        Ok(tokenizer)
    }

    /// The tokens of `text`. `special` adds what the model wants around a plain text (a beginning-of-text token, as a
    /// rule); a chat template writes those itself.
    pub fn encode(&self, text: &str, special: bool) -> Result<Encoded, String> {
        let encoding = self.inner.encode_char_offsets(text, special).map_err(unsplit)?;
        Ok(Encoded {
            tokens: encoding.get_ids().to_vec(),
            starts: encoding.get_offsets().iter().map(|(start, _)| *start).collect(),
        })
    }

    /// The most bytes of text that `tokens` tokens can stand for, unless the tokenizer drops some.
    pub fn most_bytes(&self, tokens: usize) -> usize {
        tokens.saturating_mul(self.longest)
    }

    /// `text` is surely more than `tokens` tokens. Splitting a text takes 200 to 400 times its size in memory, so this
    /// does it piece by piece and stops when there are enough. Where a text is cut it may become a few tokens more;
    /// an eighth is allowed for that, and what lies between is counted by [`Tokenizer::encode`].
    pub fn exceeds(&self, text: &str, tokens: usize) -> Result<bool, String> {
        let allowed = tokens.saturating_add(tokens / 8);
        let (mut rest, mut count) = (text, 0);
        while !rest.is_empty() && count <= allowed {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE));
            count += self.inner.encode_fast(piece, false).map_err(unsplit)?.len();
            rest = after;
        }
        Ok(count > allowed)
    }

    /// The bytes that `token` adds to a text; also of special tokens. Empty for an id that the tokenizer lacks.
    pub fn bytes(&self, token: u32) -> Vec<u8> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder().get(&token);
        match (added, self.inner.id_to_token(token)) {
            (Some(added), _) => added.content.clone().into_bytes(),
            (None, Some(spelled)) => {
                self.spelling.bytes(&spelled, || self.inner.decode(&[token], false).unwrap_or_default())
            }
            (None, None) => Vec::new(),
        }
    }

    /// The bytes that an answer shows for `token`: none for special tokens.
    pub fn shown_bytes(&self, token: u32) -> Vec<u8> {
        if self.is_special(token) { Vec::new() } else { self.bytes(token) }
    }

    /// The token that `text` is as a whole.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// The same, if it is a special token.
    pub fn special_token(&self, text: &str) -> Option<u32> {
        self.token(text).filter(|token| self.is_special(*token))
    }

    /// The token marks structure (end of text, a turn in a chat) and is no text.
    pub fn is_special(&self, token: u32) -> bool {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        added.get(&token).is_some_and(|token| token.special)
    }
}

fn unsplit(error: tokenizers::Error) -> String {
    format!("the text could not be split into tokens: {error}")
}

/// The contents of `path`; `None` if it is not there.
pub(crate) fn read_file(path: &Path, largest: u64) -> Result<Option<Vec<u8>>, Termination> {
    let unreadable = |error: std::io::Error| failed(format!("{} cannot be read: {error}", path.display()));
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Err(model_rejected(format!(
            "{} is a link that leads to itself; replace it by the model's own",
            path.display()
        ))),
        Err(error) => Err(unreadable(error)),
        // Asked before opening: to open a pipe would wait for its writer, and a device has no end.
        Ok(metadata) if !metadata.is_file() => Err(model_rejected(format!(
            "{} is not a regular file; replace it by the model's own",
            path.display()
        ))),
        Ok(metadata) if metadata.len() > largest => Err(model_rejected(format!(
            "{} has {} bytes, more than any real one ({largest}); download it again",
            path.display(),
            metadata.len()
        ))),
        Ok(_) => std::fs::read(path).map(Some).map_err(unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coterie_api::launch::TerminationReason;

    #[test]
    fn a_folder_without_a_usable_tokenizer_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Tokenizer::load(dir.path()).err().unwrap();
        assert_eq!(missing.reason, TerminationReason::ModelRejected);
        assert!(missing.message.contains("tokenizer.json is missing"));
        for contents in ["", "{}", "[1,2", r#"{"model":{"type":"BPE","vocab":7}}"#] {
            std::fs::write(dir.path().join("tokenizer.json"), contents).unwrap();
            let broken = Tokenizer::load(dir.path()).err().unwrap();
            assert_eq!(broken.reason, TerminationReason::ModelRejected);
            assert!(broken.message.contains("not a usable tokenizer"), "{}", broken.message);
        }
    }

    /// Like Llama's: `▁` for a space, bytes as `<0xHH>`.
    const SENTENCE_PIECE: &str = r#"{"version":"1.0","added_tokens":[
      {"id":0,"content":"</s>","special":true,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false}],
      "normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
        {"type":"Replace","pattern":{"String":" "},"content":"▁"}]},
      "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
        {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},
      "model":{"type":"BPE","byte_fallback":true,"fuse_unk":true,"unk_token":null,"merges":[],
        "vocab":{"</s>":0,"▁":1,"a":2,"<0xC3>":3,"<0xBC>":4,"▁a":5,"<0x41>":6}}}"#;

    #[test]
    fn a_token_keeps_its_leading_space_and_its_raw_byte() {
        let tokenizer = Tokenizer::from_bytes(SENTENCE_PIECE.as_bytes()).unwrap();
        assert_eq!(tokenizer.bytes(5), b" a");
        assert_eq!(tokenizer.bytes(3), [0xc3]);
        assert_eq!(tokenizer.bytes(0), b"</s>");
        assert_eq!(tokenizer.shown_bytes(0), b"");
        assert_eq!(tokenizer.bytes(99), b"");
        assert_eq!(tokenizer.encode("a ü", false).unwrap().tokens, [1, 2, 1, 3, 4]);
    }

    #[test]
    fn a_text_that_is_surely_too_long_is_known_without_its_end() {
        let tokenizer = Tokenizer::from_bytes(SENTENCE_PIECE.as_bytes()).unwrap();
        assert_eq!(tokenizer.most_bytes(100), 400, "the longest is </s>");
        let text = "aü".repeat(3 * PIECE);
        let tokens = tokenizer.encode(&text, false).unwrap().tokens.len();
        for (context, exceeds) in
            [(tokens, false), (tokens * 9 / 10, false), (tokens * 8 / 10, true), (5, true)]
        {
            assert_eq!(tokenizer.exceeds(&text, context).unwrap(), exceeds, "{context} of {tokens}");
        }
        assert!(!tokenizer.exceeds("", 0).unwrap());
    }
}
