//! What clusters keep between runs, mostly each node's images, and how much of the disk that is.

use std::fmt::{self, Display};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::daemon;
use super::place::Place;
use crate::cache;

/// One cluster that has a folder in the cache.
pub struct Kept {
    name: String,
    state: State,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// Started, and a daemon has ended since, or the start was not completed.
    Broken,
    Down,
}

impl Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let state = match self.state {
            State::Running => "running",
            State::Broken => "broken: `cluster down` cleans up",
            State::Down => "down",
        };
        write!(f, "{:<30} {:>9}  {state}", self.name, readable(self.bytes))
    }
}

/// Every cluster of this cache, by name.
pub fn list() -> Result<Vec<Kept>> {
    list_in(&cache::folder("cluster")?)
}

fn list_in(folder: &Path) -> Result<Vec<Kept>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.file_type()?.is_dir() {
            let place = Place::at(&name, entry.path())?;
            found.push(Kept { name, state: state(&place), bytes: size(&entry.path())? });
        }
    }
    found.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(found)
}

fn state(place: &Place) -> State {
    if !place.run.exists() {
        State::Down
    } else if place.run.join("nodes").exists() && daemon::check_alive(place).is_ok() {
        State::Running
    } else {
        State::Broken
    }
}

/// What the files in `folder` take of the disk, bytes. Files that go away meanwhile count nothing.
pub fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("cannot read {}", folder.display()))?,
        };
        for entry in entries {
            let entry = entry?;
            // Of a link itself, not of what it leads to.
            let Ok(found) = entry.metadata() else { continue };
            bytes += found.blocks() * 512;
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

/// `5.8 GB`, `12 MB`.
pub fn readable(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        _ => format!("{} MB", bytes.div_ceil(1_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_listed_with_what_they_take() {
        let cache = tempfile::tempdir().unwrap();
        let images = cache.path().join("test/node-0/containerd");
        fs::create_dir_all(&images).unwrap();
        fs::write(images.join("layer"), vec![1; 3_000_000]).unwrap();
        std::os::unix::fs::symlink("/", images.join("elsewhere")).unwrap();
        fs::create_dir_all(cache.path().join("default")).unwrap();
        fs::write(cache.path().join("stray"), "").unwrap();
        let lines: Vec<String> = list_in(cache.path()).unwrap().iter().map(Kept::to_string).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("default ") && lines[0].ends_with("0 MB  down"), "{lines:?}");
        assert!(lines[1].starts_with("test ") && lines[1].ends_with(" MB  down"), "{lines:?}");
        let bytes = size(&cache.path().join("test")).unwrap();
        assert!((3_000_000..4_000_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!([0, 1, 12_000_000, 5_800_000_000].map(readable), ["0 MB", "1 MB", "12 MB", "5.8 GB"]);
    }
}
