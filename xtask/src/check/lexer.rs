//! Just enough of Rust's lexical grammar to see identifiers and punctuation, but no comment, string or lifetime.

/// A word or a single punctuation character of Rust source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// 1-based.
    pub line: usize,
    /// The identifier, keyword or number; or one character of punctuation; or `""` for a whole string literal.
    pub text: &'a str,
}

/// The tokens of `source`. On source that does not compile the result is unspecified, but there is one.
pub fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let mut push = |text| tokens.push(Token { line, text });
        let length = if first.is_whitespace() {
            rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len())
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = string(rest) {
            push("");
            length
        } else if first == '\'' {
            char_or_lifetime(rest)
        } else if is_word(first) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            push(&rest[..length]);
            length
        } else {
            push(&rest[..first.len_utf8()]);
            first.len_utf8()
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let step = match text.as_bytes().get(at..at + 2) {
            Some(b"/*") => {
                depth += 1;
                2
            }
            Some(b"*/") => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    // `at` may sit inside a multi-byte character only if the comment never ends.
    if text.is_char_boundary(at) { at } else { text.len() }
}

/// Length of the string literal (with its `b`, `c`, `r`, `#` prefix) at the start of `text`, if there is one.
fn string(text: &str) -> Option<usize> {
    let prefix = text.find(|c| !matches!(c, 'b' | 'c' | 'r'))?;
    let raw = text[..prefix].contains('r');
    let after = &text[prefix..];
    let hashes = if raw { after.len() - after.trim_start_matches('#').len() } else { 0 };
    let body = after[hashes..].strip_prefix('"').filter(|_| prefix <= 2)?;
    let start = text.len() - body.len();
    if raw {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(body.find(&end).map_or(text.len(), |at| start + at + end.len()));
    }
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(start + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// `'a'`, `'\n'`, `'\u{1F600}'`, or a lifetime or label.
fn char_or_lifetime(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let from = at + escaped.len_utf8();
            text[from..].find('\'').map_or(text.len(), |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1 + text[1..].find(|c| !is_word(c)).unwrap_or(text.len() - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<&str> {
        tokens(source).into_iter().map(|t| t.text).collect()
    }

    #[test]
    fn comments_strings_and_lifetimes_are_not_words() {
        assert_eq!(words("fn a<'x>() {} // fn b"), ["fn", "a", "<", ">", "(", ")", "{", "}"]);
        assert_eq!(words("/* fn /* nested */ b */ mod c;"), ["mod", "c", ";"]);
        assert_eq!(words(r##"let s = r#"fn "d""# ;"##), ["let", "s", "=", "", ";"]);
        assert_eq!(
            words(r#"("a \" fn e", b'"', '\'', 'é', '"') f"#),
            ["(", "", ",", "b", ",", ",", ",", ")", "f"]
        );
    }

    #[test]
    fn lines_are_counted_through_strings_and_comments() {
        let source = "/* 1\n2 */ a\n\"3\n4\" b\n";
        let seen: Vec<_> = tokens(source).into_iter().map(|t| (t.line, t.text)).collect();
        assert_eq!(seen, [(2, "a"), (3, ""), (4, "b")]);
    }

    #[test]
    fn unfinished_source_ends() {
        for source in ["\"open", "/* é", "'", "r#\"", "'\\", "b", "é"] {
            tokens(source);
        }
    }
}
