//! The folder that cargo builds the product into: one in the cache, shared by all checkouts, so that a clean clone does
//! not build its dependencies again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache;

/// The folder, ready for this checkout.
///
/// Cargo names a workspace's own crates by their place in the workspace, and believes that a crate is fresh when its
/// files are older than what was built last. With another checkout's build in the folder that may be wrong, so
/// cargo's memory of the workspace's crates is wiped whenever the checkout changes.
pub fn folder() -> Result<PathBuf> {
    let target = cache::folder("rust")?;
    let built_for = target.join("checkout");
    let checkout = cache::checkout();
    let this = checkout.as_os_str().as_encoded_bytes();
    if fs::read(&built_for).ok().as_deref() != Some(this) {
        for profile in ["debug", "release"] {
            forget_workspace(&target.join(profile).join(".fingerprint"))?;
        }
        fs::write(&built_for, this).with_context(|| format!("cannot write {}", built_for.display()))?;
    }
    Ok(target)
}

fn forget_workspace(fingerprints: &Path) -> Result<()> {
    for entry in fs::read_dir(fingerprints).into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name();
        let ours =
            name.to_str().is_some_and(|name| name.starts_with("coterie-") || name.starts_with("xtask-"));
        if ours {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_workspaces_own_crates_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["coterie-api-1234", "xtask-1234", "kube-1234"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        forget_workspace(folder.path()).unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["kube-1234"]);
        forget_workspace(&folder.path().join("missing")).unwrap();
    }
}
