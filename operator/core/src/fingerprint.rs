//! Short hashes of values, for names, labels and annotations that change when the value does.

use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// The first `digits` hexadecimal digits of the SHA-256 of the value's JSON.
pub(crate) fn fingerprint(value: &impl Serialize, digits: usize) -> String {
    // Values of this crate are structs, strings, numbers and maps with string keys, which always serialize.
    let json = serde_json::to_vec(value).unwrap_or_default();
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(&json) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.truncate(digits);
    text
}
