//! Names say what a thing is. These words fit anything, so they say nothing.

use super::{
    Finding,
    lexer::{Token, tokens},
    source::SourceFile,
};

const BANNED: &[&str] = &["manager", "helper", "util", "utility", "common", "data", "info"];
/// axum calls the function behind a route a handler; elsewhere the word says nothing.
const BANNED_OUTSIDE_AXUM: &[&str] = &["handler"];
/// Folders whose code is axum's routes.
const AXUM: &[&str] = &["runtime/src/server", "operator/src/http"];
/// Terms of others, whose words we do not choose: (words, whose).
const TERMS: &[(&[&str], &str)] = &[
    (&["field", "manager"], "Kubernetes: who applied a field"),
    (&["controller", "manager"], "Kubernetes: the binary kube-controller-manager"),
];

/// Reports banned words in file names and in the names that Rust items are defined under.
pub fn check(files: &[SourceFile]) -> Vec<Finding> {
    files.iter().flat_map(|file| in_path(file).into_iter().chain(in_definitions(file))).collect()
}

fn in_path(file: &SourceFile) -> Option<Finding> {
    let word = banned_word(&file.path, &file.path)?;
    Some(finding(file.path.clone(), "this path", word))
}

fn in_definitions(file: &SourceFile) -> Vec<Finding> {
    let Some(text) = file.text.as_deref().filter(|_| file.is("rs")) else { return Vec::new() };
    definitions(text)
        .into_iter()
        .filter_map(|name| {
            let word = banned_word(name.text, &file.path)?;
            Some(finding(format!("{}:{}", file.path, name.line), &format!("`{}`", name.text), word))
        })
        .collect()
}

fn finding(place: String, name: &str, word: &str) -> Finding {
    Finding::new(
        place,
        format!("{name} has the word \"{word}\", which fits anything"),
        "name it after what it is or does (docs/glossary.md has the words)",
    )
}

/// The names behind `fn`, `struct` and so on.
fn definitions(source: &str) -> Vec<Token<'_>> {
    const KEYWORDS: &[&str] =
        &["fn", "struct", "enum", "union", "mod", "const", "static", "trait", "type", "macro_rules"];
    let tokens = tokens(source);
    tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| KEYWORDS.contains(&token.text))
        .filter_map(|(at, _)| {
            // `static mut X`, `macro_rules! x`, `const fn f` (the `fn` is met on its own).
            tokens[at + 1..].iter().find(|t| !matches!(t.text, "mut" | "!")).copied()
        })
        .filter(|name| name.text.starts_with(|c: char| c.is_alphabetic() || c == '_'))
        .filter(|name| !KEYWORDS.contains(&name.text))
        .collect()
}

fn banned_word(name: &str, path: &str) -> Option<&'static str> {
    let axum = AXUM.iter().any(|folder| path.starts_with(folder));
    let banned = BANNED.iter().chain(BANNED_OUTSIDE_AXUM.iter().filter(|_| !axum));
    let words = words_but_for_terms(name);
    banned
        .into_iter()
        .find(|banned| words.iter().any(|w| w == *banned || w.strip_suffix('s') == Some(banned)))
        .copied()
}

fn words_but_for_terms(name: &str) -> Vec<String> {
    let mut words = words(name);
    for (term, _) in TERMS {
        while let Some(at) = words.windows(term.len()).position(|w| w == *term) {
            words.drain(at..at + term.len());
        }
    }
    words
}

/// `HttpInfoURL`, `http_info_url` and `http/info-url.rs` have the words http, info, url.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let chars: Vec<char> = name.chars().collect();
    for (at, &c) in chars.iter().enumerate() {
        let before = at.checked_sub(1).map(|i| chars[i]);
        let starts = c.is_uppercase()
            && (before.is_some_and(|b| b.is_lowercase() || b.is_numeric())
                || chars.get(at + 1).is_some_and(|a| a.is_lowercase()));
        if starts || !c.is_alphanumeric() {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(&[SourceFile::test(path, text)]).len()
    }

    #[test]
    fn words_of_any_case() {
        assert_eq!(words("HTTPInfoUrl2"), ["http", "info", "url2"]);
        assert_eq!(words("SOME_DATA"), ["some", "data"]);
        assert_eq!(words("a/b-c.rs"), ["a", "b", "c", "rs"]);
    }

    #[test]
    fn banned_words_in_definitions() {
        for bad in [
            "struct PodManager;",
            "fn node_info() {}",
            "mod utils;",
            "const DATA: u8 = 0;",
            "fn handler() {}",
        ] {
            assert_eq!(found("api/src/x.rs", bad), 1, "{bad}");
        }
    }

    #[test]
    fn whole_words_in_definitions_only() {
        for good in
            ["struct Metadata;", "fn inform() {}", "info!(data);", "// fn helper", "const fn uncommon() {}"]
        {
            assert_eq!(found("api/src/x.rs", good), 0, "{good}");
        }
        assert_eq!(found("runtime/src/server/chat.rs", "fn handler() {}"), 0);
    }

    #[test]
    fn banned_words_in_paths() {
        assert_eq!(found("api/src/utils.rs", ""), 1);
        assert_eq!(found("docs/common/a.md", ""), 1);
        assert_eq!(found("docs/database.md", ""), 0);
    }
}
