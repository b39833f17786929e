//! The files of an image, and how they become one layer tar.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ring::digest;

use super::tar::{self, Kind};

/// Changes when the way layers are written changes, so that cached images are made anew.
const FORMAT: &str = "layer 1";

/// What lies at a path of the image. Owner is always root, time always zero.
enum Entry {
    Directory { mode: u32 },
    Text { text: String },
    Copy { mode: u32, source: PathBuf, size: u64 },
}

/// Files by their path in the image, without the leading `/`; sorted, so that the layer is the same every time.
#[derive(Default)]
pub struct Layer(BTreeMap<String, Entry>);

impl Layer {
    /// A directory; parents are added by themselves.
    pub fn directory(&mut self, path: &str, mode: u32) {
        self.insert(path, Entry::Directory { mode });
    }

    /// A small file with this text.
    pub fn text(&mut self, path: &str, text: String) {
        self.insert(path, Entry::Text { text });
    }

    /// A copy of `source`, symbolic links followed. Its bytes are read only when the layer is written.
    pub fn file(&mut self, path: &str, mode: u32, source: &Path) -> Result<()> {
        let found = fs::metadata(source).with_context(|| format!("cannot read {}", source.display()))?;
        if !found.is_file() {
            bail!("{} is not a file, so it cannot go into an image", source.display());
        }
        self.insert(path, Entry::Copy { mode, source: source.to_path_buf(), size: found.len() });
        Ok(())
    }

    /// Every file below `folder`, at the image's root.
    pub fn tree(&mut self, folder: &Path) -> Result<()> {
        self.tree_below(folder, "")?;
        if self.0.is_empty() {
            bail!("{} holds no file, so there is no image to make", folder.display());
        }
        Ok(())
    }

    fn tree_below(&mut self, folder: &Path, path: &str) -> Result<()> {
        let listing = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in listing {
            let entry = entry?.path();
            let Some(name) = entry.file_name().and_then(|name| name.to_str()) else {
                bail!("{} has a name that is not UTF-8", entry.display());
            };
            let inside = format!("{path}/{name}");
            let found = fs::metadata(&entry).with_context(|| format!("cannot read {}", entry.display()))?;
            if found.is_dir() {
                self.tree_below(&entry, &inside)?;
            } else {
                self.file(&inside, if found.mode() & 0o111 == 0 { 0o644 } else { 0o755 }, &entry)?;
            }
        }
        Ok(())
    }

    fn insert(&mut self, path: &str, entry: Entry) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_string()).or_insert(Entry::Directory { mode: 0o755 });
        }
        self.0.insert(path.to_string(), entry);
    }

    /// Identifies the layer's content without reading it: paths, and size, time and inode of each source.
    pub fn key(&self, about: &str) -> Result<String> {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut add = |part: String| hash.update(format!("{}:{part}", part.len()).as_bytes());
        add(FORMAT.into());
        add(about.into());
        for (path, entry) in &self.0 {
            add(match entry {
                Entry::Directory { mode } => format!("{path} {mode:o}"),
                Entry::Text { text } => format!("{path} {text}"),
                Entry::Copy { mode, source, .. } => {
                    let found = fs::metadata(source)?;
                    let (seconds, nanos) = (found.mtime(), found.mtime_nsec());
                    format!(
                        "{path} {mode:o} {} {} {seconds}.{nanos} {}",
                        source.display(),
                        found.len(),
                        found.ino()
                    )
                }
            });
        }
        Ok(hex(hash.finish().as_ref()))
    }

    /// Writes the layer as a tar, one file after the other, none held in memory.
    pub fn write(&self, out: &mut impl Write) -> Result<()> {
        for (path, entry) in &self.0 {
            match entry {
                Entry::Directory { mode } => {
                    out.write_all(&tar::header(&format!("{path}/"), Kind::Directory, *mode, 0)?)?;
                }
                Entry::Text { text } => {
                    out.write_all(&tar::header(path, Kind::File, 0o644, text.len() as u64)?)?;
                    tar::contents(out, text.as_bytes(), text.len() as u64)?;
                }
                Entry::Copy { mode, source, size } => {
                    out.write_all(&tar::header(path, Kind::File, *mode, *size)?)?;
                    let file =
                        File::open(source).with_context(|| format!("cannot read {}", source.display()))?;
                    tar::contents(out, file, *size)
                        .with_context(|| format!("cannot copy {}", source.display()))?;
                }
            }
        }
        out.write_all(&tar::END)?;
        Ok(())
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_adding_does_not_matter_and_parents_come_first() {
        let mut one = Layer::default();
        one.text("/b/c", "x".into());
        one.text("/a", "y".into());
        let mut two = Layer::default();
        two.text("/a", "y".into());
        two.text("/b/c", "x".into());
        let (mut first, mut second) = (Vec::new(), Vec::new());
        one.write(&mut first).unwrap();
        two.write(&mut second).unwrap();
        assert_eq!(first, second);
        assert_eq!(one.0.keys().collect::<Vec<_>>(), ["a", "b", "b/c"]);
    }

    #[test]
    fn the_key_follows_the_content() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("weights"), "abc").unwrap();
        let key = || {
            let mut layer = Layer::default();
            layer.tree(folder.path()).unwrap();
            layer.key("").unwrap()
        };
        let before = key();
        assert_eq!(before, key());
        fs::write(folder.path().join("weights"), "abcd").unwrap();
        assert_ne!(before, key());
    }

    #[test]
    fn an_empty_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Layer::default().tree(folder.path()).unwrap_err().to_string().contains("holds no file"));
    }
}
