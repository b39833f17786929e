//! Over two small vocabularies: bytes, and bytes with longer tokens that cross every border of a grammar.

mod calls;
mod forms;
mod hostile;
mod schemas;

use super::{Format, GrammarError, Grammars};
use crate::model_folder::letter;
use crate::served_model::TextSide;
use crate::tokenizer::Tokenizer;
use coterie_engine::{Constraint, TokenMask};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Ends an answer.
const END: u32 = 256;
/// Ends an answer, too, but its tokenizer takes it for text.
const OTHER_END: u32 = 257;
/// A special token.
const CALL: u32 = 258;
/// The longer tokens begin here.
const LONGER: u32 = 259;

const LONGER_TOKENS: &[&str] = &[
    "{\"", "\":", "\": ", "\",", "\", \"", "\"}", "},", "[[", "]]", "],", ", ", ",\n", ":{", "[{", "}]",
    "true", "false", "null", "alse", "ull", "12", "00", "0.", "-1", "e1", "ab", "abc", "a\"", "\\\"", "\\u",
    "ü", "漢", "</", "tool", "_call", ">\n", "\n    ", "        ", "\"a\"", "\"a\":",
];

/// A model's forms; its vocabulary is larger than its tokenizer's, as is usual.
fn grammars(longer: &[&str]) -> Arc<Grammars> {
    let mut vocab: Map<String, Value> =
        (0..=255u8).map(|byte| (letter(byte).to_string(), json!(byte))).collect();
    let structure = [("<|end|>", END, true), ("<eot>", OTHER_END, false), ("<tool_call>", CALL, true)];
    vocab.extend(structure.map(|(text, id, _)| (text.to_owned(), json!(id))));
    for (id, text) in (LONGER..).zip(longer) {
        vocab.insert(text.bytes().map(letter).collect(), json!(id));
    }
    let added = structure.map(|(text, id, special)| {
        json!({"id": id, "content": text, "special": special, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false})
    });
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let file = json!({"version": "1.0", "added_tokens": added, "pre_tokenizer": byte_level, "decoder": byte_level,
                      "model": {"type": "BPE", "vocab": vocab, "merges": []}});
    let tokenizer = Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap();
    let text = Arc::new(TextSide { tokenizer, chat_template: None, reasons: false });
    Arc::new(Grammars::new(text, vocabulary(longer), &[END, OTHER_END, 100_000]))
}

fn vocabulary(longer: &[&str]) -> usize {
    LONGER as usize + longer.len() + 5
}

/// The tokens that may come next.
fn allowed(constraint: &mut dyn Constraint) -> Result<Vec<u32>, String> {
    let tokens = vocabulary(LONGER_TOKENS) as u32;
    let mut mask = TokenMask::default();
    mask.reset(tokens as usize);
    constraint.allow(&mut mask)?;
    Ok((0..tokens).filter(|token| mask.allows(*token)).collect())
}

fn is_end(token: u32) -> bool {
    token == END || token == OTHER_END
}

/// Feeds `text` byte by byte.
fn feed(constraint: &mut dyn Constraint, text: &str) -> Result<(), String> {
    for byte in text.bytes() {
        if !allowed(constraint)?.contains(&byte.into()) {
            return Err(format!("{:?} is not allowed in {text:?}", byte as char));
        }
        constraint.accept(byte.into())?;
    }
    Ok(())
}

/// `text` is a whole answer of this form, spelled in bytes.
fn takes(grammars: &Grammars, format: &Format, text: &str) -> bool {
    let mut constraint = grammars.compile(format).unwrap();
    feed(&mut *constraint, text).is_ok() && allowed(&mut *constraint).unwrap().contains(&END)
}

/// A sequence of numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// A random answer, or why it could not go on; `None` if it has not ended after `most` tokens. On the way, mask and
/// acceptance must agree.
fn random_answer(
    grammars: &Grammars,
    constraint: &mut dyn Constraint,
    dice: &mut Dice,
    most: usize,
) -> Result<Option<Vec<u8>>, String> {
    let mut answer = Vec::new();
    for step in 0..most {
        let allowed = allowed(constraint)?;
        assert!(!allowed.is_empty(), "nothing may follow {:?}", String::from_utf8_lossy(&answer));
        assert!(!allowed.contains(&CALL), "a special token in {:?}", String::from_utf8_lossy(&answer));
        let probe = dice.below(LONGER as usize + LONGER_TOKENS.len()) as u32;
        if step % 4 == 0 && !is_end(probe) {
            let accepted = constraint.fork().accept(probe).is_ok();
            assert_eq!(
                accepted,
                allowed.contains(&probe),
                "token {probe} after {:?}",
                String::from_utf8_lossy(&answer)
            );
        }
        let mut token = allowed[dice.below(allowed.len())];
        if step > 60 {
            // Enough: whatever closes something is taken first.
            let closing = [END, b'"'.into(), b'}'.into(), b']'.into()];
            token = closing.into_iter().find(|token| allowed.contains(token)).unwrap_or(token);
        }
        if is_end(token) {
            assert!(allowed.contains(&END) && allowed.contains(&OTHER_END));
            return Ok(Some(answer));
        }
        constraint.accept(token)?;
        answer.extend(grammars.text.tokenizer.bytes(token));
    }
    Ok(None)
}
