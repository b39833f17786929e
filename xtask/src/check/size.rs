//! Small files, and a repository that clones fast.

use super::{Finding, source::SourceFile};

const MOST_LINES: usize = 600;
const MOST_BYTES: u64 = 2 << 20;
const CODE: &[&str] = &["rs", "py", "sh"];

/// Reports code files of too many lines.
pub fn lines(files: &[SourceFile]) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| CODE.iter().any(|extension| file.is(extension)))
        .map(|file| (file, file.lines().count()))
        .filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(file, lines)| {
            Finding::new(
                &file.path,
                format!("{lines} lines are more than {MOST_LINES}"),
                "split it by reason to change; a folder of the file's name holds the parts",
            )
        })
        .collect()
}

/// Reports files that are too large for a repository.
pub fn bytes(files: &[SourceFile]) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| file.bytes > MOST_BYTES)
        .map(|file| {
            Finding::new(
                &file.path,
                format!("{} bytes are more than {MOST_BYTES}", file.bytes),
                "commit the script that makes it, or a smaller one",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_code_is_found_and_long_tables_are_not() {
        let long = "x\n".repeat(MOST_LINES + 1);
        assert_eq!(lines(&[SourceFile::test("a.rs", &long)]).len(), 1);
        assert_eq!(lines(&[SourceFile::test("a.rs", &long[2..])]).len(), 0);
        assert_eq!(lines(&[SourceFile::test("go.sum", &long)]).len(), 0);
    }

    #[test]
    fn large_files_are_found() {
        let large = SourceFile { path: "a.bin".into(), bytes: MOST_BYTES + 1, text: None };
        assert_eq!(bytes(std::slice::from_ref(&large)).len(), 1);
        assert_eq!(bytes(&[SourceFile { bytes: MOST_BYTES, ..large }]).len(), 0);
    }
}
