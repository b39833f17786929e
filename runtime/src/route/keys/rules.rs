//! API keys as a mounted Secret has them: one file each, named like the key, with its hash and its limits. The keys
//! themselves are nowhere.
//!
//! ```yaml
//! sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae   # printf %s KEY | sha256sum
//! requestsPerMinute: 600     # each default: no limit
//! tokensPerMinute: 200000    # of prompts, estimated until the answer tells, and of answers
//! concurrency: 16            # requests at once, those that wait included
//! priority: 0                # higher ones are served first
//! ```

use crate::exchange::files::read_bounded;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde::Deserialize;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
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
    rules.sort_by(|a: &KeyRule, b| a.name.cmp(&b.name));
    let rules = once_each(rules, &mut troubles);
    troubles.sort();
    Ok((rules, troubles))
}

/// Of the names of one key only the first counts. No limit of the others is lifted by that.
fn once_each(rules: Vec<KeyRule>, troubles: &mut Vec<String>) -> Vec<KeyRule> {
    let mut kept: Vec<KeyRule> = Vec::new();
    let mut places: HashMap<[u8; SHA256_OUTPUT_LEN], usize> = HashMap::new();
    for rule in rules {
        match places.entry(rule.hash) {
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(rule);
            }
            Entry::Occupied(place) => {
                let first = &mut kept[*place.get()];
                first.allowance = first.allowance.stricter(&rule.allowance);
                troubles.push(format!(
                    "the API key {} is of no use: it is the same key as {}, which has the stricter of both limits; delete one of them",
                    rule.name, first.name
                ));
            }
        }
    }
    kept
}

impl Allowance {
    /// What both allow.
    fn stricter(&self, other: &Allowance) -> Allowance {
        let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        Allowance {
            requests_per_minute: least(self.requests_per_minute, other.requests_per_minute),
            tokens_per_minute: least(self.tokens_per_minute, other.tokens_per_minute),
            concurrency: least(self.concurrency, other.concurrency),
            priority: self.priority.min(other.priority),
        }
    }
}

fn parse(name: &str, bytes: &[u8]) -> Result<KeyRule, String> {
    let file: KeyFile = serde_saphyr::from_slice(bytes).map_err(|error| malformed(&error))?;
    for (limit, value) in [
        ("requestsPerMinute", file.requests_per_minute),
        ("tokensPerMinute", file.tokens_per_minute),
        ("concurrency", file.concurrency),
    ] {
        if value == Some(0) {
            return Err(format!("{limit} must be at least 1; delete the entry to lock the caller out"));
        }
    }
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

/// Where a file is wrong, and what it should be. The parser's own words quote the file, in which somebody may have put the
/// key itself.
fn malformed(error: &serde_saphyr::Error) -> String {
    let place = error
        .location()
        .map_or_else(String::new, |at| format!(" near line {}, column {}", at.line(), at.column()));
    format!(
        "it is not as it must be{place}; expected are sha256: 64 hexadecimal digits, and if wanted requestsPerMinute, tokensPerMinute, concurrency and priority, whole numbers, each at most once and nothing else"
    )
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
        assert!(troubles[1].contains("typo") && troubles[1].contains("tokensPerMinute"), "{troubles:?}");
        assert!(troubles[1].contains("line 2"), "{troubles:?}");
        assert!(read(&dir.path().join("none")).is_err());
    }

    #[test]
    fn what_is_wrong_is_told_without_what_is_in_the_file() {
        for text in [
            "sk-live-abc",
            "sk-live-abc: 1",
            "key: sk-live-abc",
            "sha256: sk-live-abc",
            "sha256: [sk-live-abc]",
            "sha256: {sk-live-abc",
            "sha256: *sk-live-abc",
            "sha256: !sk-live-abc x",
            "concurrency: sk-live-abc",
            "sk-live-abc: 1\nsk-live-abc: 2",
            "priority: 1\npriority: sk-live-abc",
            "{\"sha256\": \"sk-live-abc\"",
            "\"sk-live-abc\\q\"",
        ] {
            let error = parse("a", text.as_bytes()).unwrap_err();
            assert!(!error.contains("sk-") && !error.contains("live"), "{error}");
            assert!(error.contains("64 hexadecimal digits"), "{error}");
        }
    }

    #[test]
    fn a_limit_of_nothing_is_refused() {
        for limit in ["requestsPerMinute", "tokensPerMinute", "concurrency"] {
            let error = parse("a", format!("sha256: {FOO}\n{limit}: 0\n").as_bytes()).unwrap_err();
            assert_eq!(error, format!("{limit} must be at least 1; delete the entry to lock the caller out"));
        }
    }

    #[test]
    fn a_second_name_of_a_key_lifts_no_limit() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("a", &format!("sha256: {FOO}\nconcurrency: 2\npriority: 3\n"));
        write("b", &format!("sha256: {FOO}\nconcurrency: 9\ntokensPerMinute: 5\n"));
        write("c", &format!("sha256: {}\n", "0".repeat(64)));
        let (rules, troubles) = read(dir.path()).unwrap();
        let names: Vec<&str> = rules.iter().map(|rule| &*rule.name).collect();
        assert_eq!(names, ["a", "c"]);
        let both = Allowance { concurrency: Some(2), tokens_per_minute: Some(5), ..Allowance::default() };
        assert_eq!(rules[0].allowance, both);
        assert_eq!(troubles.len(), 1);
        assert!(troubles[0].contains("API key b") && troubles[0].contains("same key as a,"), "{troubles:?}");
    }
}
