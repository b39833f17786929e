//! tokenizer.json.

use crate::fuzz::{Target, put, run};
use coterie_runtime::tokenizer::Tokenizer;
use std::panic::{AssertUnwindSafe, catch_unwind};

const TEXT: &str = "Hello, wörld! <|turn|> 123 \u{0}\u{feff} 漢字 🦀   aaaaaaaaaaaaaaaaaaaaaaaa\n\tdon't";

#[test]
fn tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target {
        name: "tokenizer",
        inputs: 6_000,
        json: true,
        words: &[
            "type",
            "BPE",
            "WordPiece",
            "WordLevel",
            "Unigram",
            "vocab",
            "merges",
            "added_tokens",
            "id",
            "content",
            "special",
            "normalizer",
            "NFC",
            "Prepend",
            "Replace",
            "Regex",
            "String",
            "pattern",
            "pre_tokenizer",
            "Sequence",
            "pretokenizers",
            "Split",
            "behavior",
            "Isolated",
            "ByteLevel",
            "Metaspace",
            "post_processor",
            "TemplateProcessing",
            "decoder",
            "ByteFallback",
            "Fuse",
            "Strip",
            "truncation",
            "padding",
            "byte_fallback",
            "unk_token",
            "dropout",
            "(a+)+$",
            "a{99999}",
            "(?=x*)*",
            "\\p{L}+",
            "▁",
            "<0x41>",
            "a b",
            "a",
        ],
        repair: |_| {},
        memory: |input| (64 << 20) + 2000 * input,
    };
    run(&target, |json| {
        put(&dir.path().join("tokenizer.json"), json);
        let tokenizer = match Tokenizer::load(dir.path()) {
            Ok(tokenizer) => tokenizer,
            Err(refused) => return refused.message,
        };
        // As `ServedModel` does it: a tokenizer that panics on a text is that request's failure.
        let Ok(encoded) = catch_unwind(AssertUnwindSafe(|| tokenizer.encode(TEXT, true))) else {
            return "panicked on the text".to_owned();
        };
        for token in [0, 1, 2, 258, u32::MAX] {
            tokenizer.shown_bytes(token);
        }
        match encoded {
            Ok(encoded) => {
                assert_eq!(encoded.tokens.len(), encoded.starts.len());
                for token in encoded.tokens.iter().take(50) {
                    tokenizer.shown_bytes(*token);
                }
                format!("{} tokens", encoded.tokens.len().min(3))
            }
            Err(refused) => refused,
        }
    });
}
