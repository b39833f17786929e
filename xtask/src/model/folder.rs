//! A folder that appears whole or not at all.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::recipe;

/// A folder beside its destination that nobody else writes to: `<name>.partial`, locked while it is filled.
pub struct Draft {
    destination: PathBuf,
    partial: PathBuf,
    _lock: File,
}

impl Draft {
    /// Opens an empty draft of `destination`, clearing what a killed run left. Waits for a run that is at it; None if
    /// that one completed the destination.
    pub fn open(destination: &Path) -> Result<Option<Self>> {
        let name =
            destination.file_name().with_context(|| format!("{} names no folder", destination.display()))?;
        let mut partial_name = name.to_owned();
        partial_name.push(".partial");
        let partial = destination.with_file_name(partial_name);
        loop {
            fs::create_dir_all(&partial).with_context(|| format!("creating {}", partial.display()))?;
            let Ok(lock) = File::open(&partial) else { continue }; // renamed by its owner in between
            wait_for(&lock, &partial)?;
            if recipe::is_complete(destination) {
                return Ok(None);
            }
            // The lock is on what the path meant when it was opened.
            if is_same(&lock, &partial)? {
                clear(&partial)?;
                return Ok(Some(Draft { destination: destination.to_owned(), partial, _lock: lock }));
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Renames the draft to its destination, which is absent or empty.
    pub fn publish(self) -> Result<()> {
        fs::rename(&self.partial, &self.destination)
            .with_context(|| format!("renaming {} to {}", self.partial.display(), self.destination.display()))
    }
}

fn wait_for(lock: &File, partial: &Path) -> Result<()> {
    match lock.try_lock() {
        Ok(()) => return Ok(()),
        Err(TryLockError::WouldBlock) => {
            eprintln!("  waiting for another run that fills {}", partial.display())
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("locking {}", partial.display()));
        }
    }
    lock.lock().with_context(|| format!("locking {}", partial.display()))
}

fn is_same(open: &File, path: &Path) -> Result<bool> {
    let open = open.metadata()?;
    Ok(fs::metadata(path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == (open.dev(), open.ino())))
}

fn clear(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let path = entry?.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_clears_leftovers_and_appears_by_rename() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let destination = folder.path().join("model");
        fs::create_dir_all(folder.path().join("model.partial/wheel")).expect("leftovers");
        fs::write(folder.path().join("model.partial/half"), "x").expect("leftovers");
        let draft = Draft::open(&destination).expect("opened").expect("not complete");
        assert_eq!(fs::read_dir(draft.path()).expect("listed").count(), 0);
        fs::write(draft.path().join("whole"), "y").expect("written");
        assert!(!destination.exists());
        draft.publish().expect("published");
        assert_eq!(fs::read_to_string(destination.join("whole")).expect("read"), "y");
        assert!(!folder.path().join("model.partial").exists());
    }

    #[test]
    fn a_second_run_waits_for_the_first() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let destination = folder.path().join("model");
        let first = Draft::open(&destination).expect("opened").expect("not complete");
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Draft::open(&destination).expect("opened").expect("not complete"));
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!second.is_finished());
            drop(first);
            assert_eq!(second.join().expect("joined").path(), folder.path().join("model.partial"));
        });
    }
}
