//! The files of the checkout that a commit would take, read once for all rules.

use anyhow::{Context, Result, ensure};
use std::{fs, path::Path, process::Command};

/// One file.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Relative to the root, with `/`.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Its text; `None` where it is not UTF-8.
    pub text: Option<String>,
}

impl SourceFile {
    /// Whether the name ends in `.extension`.
    pub fn is(&self, extension: &str) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, e)| e == extension)
    }

    /// (1-based number, text) of each line; none for a binary file.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.iter().flat_map(|text| text.lines()).enumerate().map(|(i, line)| (i + 1, line))
    }

    #[cfg(test)]
    pub fn test(path: &str, text: &str) -> Self {
        SourceFile { path: path.into(), bytes: text.len() as u64, text: Some(text.into()) }
    }
}

/// Tracked files, and new ones that .gitignore does not name.
pub fn read(root: &Path) -> Result<Vec<SourceFile>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("cannot run git; install it")?;
    ensure!(
        listed.status.success(),
        "git cannot list the files of {}: {}; the check needs a git checkout",
        root.display(),
        String::from_utf8_lossy(&listed.stderr).trim()
    );
    let mut files = Vec::new();
    for path in String::from_utf8(listed.stdout)?.split_terminator('\0') {
        // A file that git still lists but that is gone was deleted and not yet committed.
        let Ok(content) = fs::read(root.join(path)) else { continue };
        files.push(SourceFile {
            path: path.to_owned(),
            bytes: content.len() as u64,
            text: String::from_utf8(content).ok(),
        });
    }
    Ok(files)
}
