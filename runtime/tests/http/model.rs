//! A model folder without weights: each byte is a token, three more mark structure.

use serde_json::{Map, Value, json};
use std::path::Path;
use tempfile::TempDir;

pub const TURN: u32 = 256;
pub const END: u32 = 257;
pub const BEGIN: u32 = 258;

const CHAT_TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' and loop.first %}\
{{ raise_exception('the user speaks first') }}{% endif %}\
<|turn|>{{ m.role }}\n{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}";

/// Marks its reasoning, and begins the answer inside it where `deep` is set.
pub const REASONING_TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}<|turn|>{{ m.role }}\n\
{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}{{ eos_token }}{% endfor %}\
<|turn|>assistant\n{% if deep %}<think>\n{% endif %}";

pub fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    dir
}

/// The same with another chat template, which wins over the first.
pub fn folder_with(template: &str) -> TempDir {
    let dir = folder();
    std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    dir
}

/// Writes what is not weights.
pub fn write(dir: &Path) {
    let mut vocab: Map<String, Value> =
        (0..=255u8).map(|byte| (letter(byte).to_string(), json!(byte))).collect();
    let structure = [("<|turn|>", TURN), ("<|end|>", END), ("<s>", BEGIN)];
    vocab.extend(structure.map(|(text, id)| (text.to_owned(), json!(id))));
    let added = structure.map(|(text, id)| {
        json!({"id": id, "content": text, "special": true, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false})
    });
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let tokenizer = json!({
        "version": "1.0", "added_tokens": added, "pre_tokenizer": byte_level, "decoder": byte_level,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BEGIN], "tokens": ["<s>"]}}},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config =
        json!({"bos_token": "<s>", "eos_token": {"content": "<|end|>"}, "chat_template": CHAT_TEMPLATE});
    std::fs::write(dir.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// The character by which a byte-level vocabulary spells `byte`.
pub fn letter(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return byte as char;
    }
    let before = (0..byte).filter(|b| !printable(*b)).count() as u32;
    char::from_u32(256 + before).unwrap()
}
