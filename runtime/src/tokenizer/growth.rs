//! How much text a tokenizer may make of text before it splits it. What is not bounded here would let a folder's
//! `tokenizer.json` turn twenty letters into gigabytes.

use serde::Deserialize;
use serde_json::Value;

/// Times as many bytes at most. Real tokenizers stay under 40.
const MOST: u64 = 128;
/// Of a Unicode normalization with compatibility forms: U+FDFA, 3 bytes, becomes 33.
const COMPATIBILITY: u64 = 11;
/// Of one that decomposes only, of changed case, of bytes as letters.
const DECOMPOSITION: u64 = 3;
/// Of what is not known here.
const UNKNOWN: u64 = 8;

#[derive(Deserialize)]
struct Steps {
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
}

/// Refuses the contents of a `tokenizer.json` whose steps may make too much of a text.
pub(super) fn check(json: &[u8]) -> Result<(), String> {
    let steps: Steps = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let growth =
        [steps.normalizer, steps.pre_tokenizer].iter().flatten().map(growth).fold(1, u64::saturating_mul);
    match growth > MOST {
        true => Err(format!(
            "its normalizer and pre_tokenizer may make a text {growth} times as long, and {MOST} times is the most"
        )),
        false => Ok(()),
    }
}

/// Bytes that come out for one that goes in, at most.
fn growth(step: &Value) -> u64 {
    let length = |key: &str| step[key].as_str().map_or(1, |text| text.len().max(1) as u64);
    match step["type"].as_str().unwrap_or_default() {
        "Sequence" => {
            let parts = [&step["normalizers"], &step["pretokenizers"]];
            let parts = parts.into_iter().filter_map(Value::as_array).flatten();
            parts.map(growth).fold(1, u64::saturating_mul)
        }
        "Replace" => {
            let pattern = step["pattern"]["String"].as_str().map_or(1, |text| text.len().max(1) as u64);
            length("content").div_ceil(pattern)
        }
        "Prepend" => length("prepend"),
        "Metaspace" => length("replacement"),
        "NFKC" | "NFKD" | "Precompiled" => COMPATIBILITY,
        "NFC" | "NFD" | "Lowercase" | "ByteLevel" | "BertNormalizer" => DECOMPOSITION,
        "Strip" | "StripAccents" | "Nmt" | "Whitespace" | "WhitespaceSplit" | "Digits" | "Punctuation"
        | "Split" | "BertPreTokenizer" | "UnicodeScripts" | "CharDelimiterSplit" | "FixedLength" => 1,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checked(normalizer: Value, pre_tokenizer: Value) -> Result<(), String> {
        check(
            json!({"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": {}})
                .to_string()
                .as_bytes(),
        )
    }

    #[test]
    fn real_tokenizers_pass() {
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let prepend = json!({"type": "Prepend", "prepend": "▁"});
        let llama = json!({"type": "Sequence", "normalizers": [prepend, replace, {"type": "NFKC"}]});
        assert_eq!(checked(llama, Value::Null), Ok(()));
        let split = json!({"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated"});
        let bytes = json!({"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel"}]});
        assert_eq!(checked(json!({"type": "NFC"}), bytes), Ok(()));
        assert_eq!(checked(Value::Null, Value::Null), Ok(()));
    }

    #[test]
    fn what_grows_step_by_step_is_refused() {
        let replace = json!({"type": "Replace", "pattern": {"String": "q"}, "content": "q".repeat(100)});
        let refused = checked(json!({"type": "Sequence", "normalizers": [replace, replace]}), Value::Null);
        assert!(refused.unwrap_err().contains("10000 times as long"));
        let all = json!({"type": "Replace", "pattern": {"Regex": "."}, "content": "x".repeat(200)});
        assert!(checked(all, Value::Null).is_err());
        assert!(checked(json!({"type": "Prepend", "prepend": "x".repeat(200)}), Value::Null).is_err());
    }
}
