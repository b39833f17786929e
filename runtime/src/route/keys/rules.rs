//! API keys as a mounted Secret has them: one file each, named like the key, with its hash and its limits. The keys
//! themselves are nowhere.
//!
//! ```yaml
//! sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae   # printf %s KEY | sha256sum
//! requestsPerMinute: 600     # each default: no limit
//! tokensPerMinute: 200000    # of prompts, estimated from their bytes, and of answers
//! concurrency: 16            # requests at once, those that wait included
//! priority: 0                # higher ones are served first
//! ```

use crate::exchange::files::read_bounded;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde::Deserialize;
use std::path::Path;

/// Bytes of a key's file at most.
const FILE: u64 = 4096;
/// Keys that are read.
const MOST: usize = 4096;

/// What one key allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRule {
    /// What it is called.
    pub name: String,
    /// Of the key.
    pub hash: [u8; SHA256_OUTPUT_LEN],
    /// Its limits.
    pub allowance: Allowance,
}

/// How much a caller may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Requests in a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens in a minute, of prompts and answers.
    pub tokens_per_minute: Option<u64>,
    /// Requests at once.
    pub concurrency: Option<u64>,
    /// Higher ones are served first.
    pub priority: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KeyFile {
    sha256: String,
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
    concurrency: Option<u64>,
    #[serde(default)]
    priority: i32,
}

/// The keys in a folder, by name, and what is wrong with the others. An error says that there is no such folder.
pub fn read(folder: &Path) -> Result<(Vec<KeyRule>, Vec<String>), String> {
    let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", folder.display());
    let (mut rules, mut troubles) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(unreadable)?.take(MOST) {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Kubernetes keeps what it swaps under names with dots.
        if name.starts_with('.') {
            continue;
        }
        let read = read_bounded(&entry.path(), FILE).and_then(|bytes| {
            parse(&name, &bytes).map_err(|error| format!("the API key {name} is of no use: {error}"))
        });
        match read {
            Ok(rule) => rules.push(rule),
            Err(trouble) => troubles.push(trouble),
        }
    }
    rules.sort_by(|a, b| a.name.cmp(&b.name));
    troubles.sort();
    Ok((rules, troubles))
}

fn parse(name: &str, bytes: &[u8]) -> Result<KeyRule, String> {
    let file: KeyFile = serde_saphyr::from_slice(bytes).map_err(|error| error.to_string())?;
    let allowance = Allowance {
        requests_per_minute: file.requests_per_minute,
        tokens_per_minute: file.tokens_per_minute,
        concurrency: file.concurrency,
        priority: file.priority,
    };
    let hash =
        unhex(&file.sha256).ok_or("sha256 must be 64 hexadecimal digits: printf %s KEY | sha256sum")?;
    Ok(KeyRule { name: name.to_owned(), hash, allowance })
}

fn unhex(text: &str) -> Option<[u8; SHA256_OUTPUT_LEN]> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    if digits.len() == 2 * SHA256_OUTPUT_LEN { bytes.try_into().ok() } else { None }
}

/// Which of `hashes` is that of `key`. All of them are compared, each to its end: the time tells nothing.
pub fn position<'a>(hashes: impl Iterator<Item = &'a [u8; SHA256_OUTPUT_LEN]>, key: &str) -> Option<usize> {
    let presented = digest(&SHA256, key.as_bytes());
    let mut found = None;
    for (at, hash) in hashes.enumerate() {
        let difference = hash.iter().zip(presented.as_ref()).fold(0, |so_far, (a, b)| so_far | (a ^ b));
        if difference == 0 {
            found = Some(at);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOO: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

    #[test]
    fn a_key_is_known_by_its_hash() {
        let hashes = [[0; 32], unhex(FOO).unwrap(), [7; 32]];
        assert_eq!(position(hashes.iter(), "foo"), Some(1));
        assert_eq!(position(hashes.iter(), "fooo"), None);
        assert_eq!(position([].iter(), ""), None);
    }

    #[test]
    fn a_folder_of_keys_is_read_and_bad_ones_are_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("team-a", &format!("sha256: {FOO}\ntokensPerMinute: 5\npriority: -1\n"));
        write("short", "sha256: abcd\n");
        write("typo", &format!("sha256: {FOO}\ntokenPerMinute: 5\n"));
        write("..data", "not a key");
        let (rules, troubles) = read(dir.path()).unwrap();
        let allowance = Allowance { tokens_per_minute: Some(5), priority: -1, ..Allowance::default() };
        assert_eq!(rules, [KeyRule { name: "team-a".into(), hash: unhex(FOO).unwrap(), allowance }]);
        assert!(troubles[0].contains("short") && troubles[0].contains("64 hexadecimal"), "{troubles:?}");
        assert!(troubles[1].contains("typo") && troubles[1].contains("tokenPerMinute"), "{troubles:?}");
        assert!(read(&dir.path().join("none")).is_err());
    }
}
