//! Where everything that is built or downloaded is kept between runs, and where the checkout is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The cache folder: `$COTERIE_CACHE`, or `~/.cache/coterie`.
pub fn root() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("COTERIE_CACHE").filter(|folder| !folder.is_empty()) {
        return std::path::absolute(folder).context("COTERIE_CACHE is not a usable path");
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.context("neither COTERIE_CACHE nor HOME is set, so there is no folder to build in")?;
    Ok(PathBuf::from(home).join(".cache/coterie"))
}

/// A folder inside the cache (`go`, `rust`, `model`, `images`, `cluster/NAME`), made if it is missing.
pub fn folder(name: impl AsRef<Path>) -> Result<PathBuf> {
    let folder = root()?.join(name);
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the cache folder {}", folder.display()))?;
    Ok(folder)
}

/// The root of the checkout this program was started from.
pub fn checkout() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let xtask = xtask.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    xtask.parent().map(Path::to_path_buf).unwrap_or(xtask)
}
