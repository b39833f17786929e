//! What must not be written in any file: unfinished work, one machine's paths, links to nowhere.

use super::{Finding, lexer::tokens, source::SourceFile};
use std::path::Path;

/// Written by tools, and full of hashes that may spell anything.
const GENERATED: &[&str] = &["lock", "sum"];

/// Reports marks of work that was left for later, and tests that are switched off without a reason.
pub fn unfinished(files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !GENERATED.iter().any(|e| file.is(e))) {
        for (number, line) in file.lines() {
            if let Some(mark) = MARKS.iter().find(|mark| has_word(line, mark)) {
                findings.push(Finding::new(
                    format!("{}:{number}", file.path),
                    format!("{mark} marks unfinished work"),
                    "finish it, or take the line out and open an issue",
                ));
            }
        }
        if let Some(text) = file.text.as_deref().filter(|_| file.is("rs")) {
            findings.extend(unfinished_rust(&file.path, text));
        }
    }
    findings
}

// Spelt in two halves, so that this file passes its own rule.
const MARKS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];

fn unfinished_rust(path: &str, text: &str) -> Vec<Finding> {
    let tokens = tokens(text);
    let texts: Vec<&str> = tokens.iter().map(|t| t.text).collect();
    let place = |at: usize| format!("{path}:{}", tokens[at].line);
    let mut findings = Vec::new();
    for at in 0..tokens.len() {
        match &texts[at..] {
            [name @ ("todo" | "unimplemented"), "!", ..] => findings.push(Finding::new(
                place(at),
                format!("{name}! is a part that is not there"),
                "write it, or return an error that names what is not supported",
            )),
            ["#", "[", "ignore", "]", ..] => findings.push(Finding::new(
                place(at),
                "a test is switched off without a reason",
                "write #[ignore = \"why, and when it runs\"], or let it run",
            )),
            _ => {}
        }
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word))
}

/// Reports paths that exist on one machine only: home folders, and `checkout`, the folder of this very checkout.
pub fn machine_paths(files: &[SourceFile], checkout: &Path) -> Vec<Finding> {
    let checkout = checkout.display().to_string();
    let mut paths = vec![concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
    // A checkout directly under / would make a pattern that fits anything.
    if checkout.matches('/').count() > 1 {
        paths.push(&checkout);
    }
    let mut findings = Vec::new();
    for file in files {
        for (number, line) in file.lines() {
            if let Some(path) = paths.iter().find(|path| line.contains(**path)) {
                findings.push(Finding::new(
                    format!("{}:{number}", file.path),
                    format!("{path} exists on one machine only"),
                    "take it from the environment, or write it relative to the repository",
                ));
            }
        }
    }
    findings
}

/// Reports links in Markdown to files that are not there.
pub fn links(files: &[SourceFile]) -> Vec<Finding> {
    let exists = |path: &str| {
        let folder = format!("{path}/");
        files.iter().any(|file| file.path == path || file.path.starts_with(&folder))
    };
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is("md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in file.lines() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next()) {
                if !target.is_empty() && !target.contains(':') && !exists(&resolve(folder, target)) {
                    findings.push(Finding::new(
                        format!("{}:{number}", file.path),
                        format!("the link to {target} leads nowhere"),
                        "name a file of this repository, relative to the page",
                    ));
                }
            }
        }
    }
    findings
}

fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(path: &str, text: &str) -> usize {
        unfinished(&[SourceFile::test(path, text)]).len()
    }

    #[test]
    fn unfinished_work_is_found() {
        for mark in MARKS {
            assert_eq!(marks("a.py", &format!("# {mark}: later")), 1);
            assert_eq!(marks("go.sum", &format!("h1:{mark}=")), 0);
            assert_eq!(marks("a.sh", &format!("mktemp {mark}XYZ")), 0);
        }
        assert_eq!(marks("a.rs", concat!("fn f() { to", "do!() }")), 1);
        assert_eq!(marks("a.rs", "fn f() { unimplemented!(\"x\") }"), 1);
        assert_eq!(marks("a.rs", "// says unimplemented! in a comment"), 0);
    }

    #[test]
    fn a_test_is_switched_off_only_with_a_reason() {
        assert_eq!(marks("a.rs", "#[test]\n#[ignore]\nfn f() {}"), 1);
        assert_eq!(marks("a.rs", "#[test]\n#[ignore = \"needs a GPU\"]\nfn f() {}"), 0);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let found =
            |text: &str| machine_paths(&[SourceFile::test("a.md", text)], Path::new("/src/coterie")).len();
        assert_eq!(found(concat!("see /ho", "me/ann/x")), 1);
        assert_eq!(found("see /src/coterie/api"), 1);
        assert_eq!(found("see /var/lib/kubelet"), 0);
    }

    #[test]
    fn links_to_nowhere_are_found() {
        let page = |text| vec![SourceFile::test("docs/a.md", text), SourceFile::test("docs/design/b.md", "")];
        assert_eq!(links(&page("[b](design/c.md)")).len(), 1);
        assert_eq!(links(&page("[b](b.md), [c](design/b.md)")).len(), 1);
        for good in ["[b](design/b.md#x)", "[b](../docs/design)", "[b](#top)", "[b](https://example.org/b)"] {
            assert_eq!(links(&page(good)).len(), 0, "{good}");
        }
    }
}
