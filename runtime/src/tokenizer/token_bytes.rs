//! How a vocabulary spells bytes. Decoding token by token through a tokenizer's own decoder is wrong at the edges (it
//! strips the first space and cannot give half a character), so a token's bytes are read from its spelling.

use std::sync::LazyLock;
use tokenizers::DecoderWrapper;

/// How a vocabulary spells bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// GPT-2's: each byte is one printable character.
    ByteLevel,
    /// SentencePiece's: `▁` is a space, `<0xHH>` a byte.
    SentencePiece,
    /// Another; the tokenizer's own decoder decides.
    Other,
}

impl Spelling {
    pub(super) fn of(decoder: Option<&DecoderWrapper>) -> Spelling {
        match decoder {
            Some(DecoderWrapper::ByteLevel(_)) => Spelling::ByteLevel,
            Some(DecoderWrapper::Metaspace(_) | DecoderWrapper::ByteFallback(_)) => Spelling::SentencePiece,
            Some(DecoderWrapper::Sequence(parts)) => {
                let parts = parts.get_decoders().iter().map(|part| Spelling::of(Some(part)));
                parts.into_iter().find(|spelling| *spelling != Spelling::Other).unwrap_or(Spelling::Other)
            }
            _ => Spelling::Other,
        }
    }

    pub(super) fn bytes(self, spelled: &str, decode: impl FnOnce() -> String) -> Vec<u8> {
        match self {
            Spelling::ByteLevel => byte_level(spelled).unwrap_or_else(|| spelled.as_bytes().to_vec()),
            Spelling::SentencePiece => match raw_byte(spelled) {
                Some(byte) => vec![byte],
                None => spelled.replace('▁', " ").into_bytes(),
            },
            Spelling::Other => decode().into_bytes(),
        }
    }
}

fn raw_byte(spelled: &str) -> Option<u8> {
    let digits = spelled.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

fn byte_level(spelled: &str) -> Option<Vec<u8>> {
    spelled.chars().map(|c| *BYTE_OF.get(c as usize)?).collect()
}

/// The byte that a character stands for, by the character's number: printable bytes stand for themselves, the others
/// take the numbers from 256 up, in order.
static BYTE_OF: LazyLock<Vec<Option<u8>>> = LazyLock::new(|| {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut bytes: Vec<Option<u8>> = (0..=255).map(|byte| printable(byte).then_some(byte)).collect();
    bytes.extend((0..=255).filter(|byte| !printable(*byte)).map(Some));
    bytes
});

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    #[test]
    fn byte_level_characters_are_the_tokenizers_own() {
        assert_eq!(BYTE_OF.len(), 256 + 68);
        let alphabet = ByteLevel::alphabet();
        let ours: Vec<char> =
            (0..324u32).filter(|n| BYTE_OF[*n as usize].is_some()).filter_map(char::from_u32).collect();
        assert_eq!(ours.len(), 256);
        assert!(ours.iter().all(|c| alphabet.contains(c)));
        assert_eq!(byte_level("ĠHi").unwrap(), b" Hi");
        assert_eq!(byte_level("Ċ").unwrap(), b"\n");
        assert_eq!(byte_level("Ã¼").unwrap(), "ü".as_bytes());
        assert_eq!(byte_level("漢"), None);
    }
}
