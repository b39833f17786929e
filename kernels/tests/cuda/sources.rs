//! The kernels' sources, `cu/*.cu`.
#![allow(dead_code)] // each test binary uses a part

use std::fs;
use std::path::{Path, PathBuf};

/// Where they are: in the package that cargo runs the test of, or else where it was compiled; seen from another package of
/// the workspace, beside it.
pub fn folder() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = Path::new(&package);
    let own = package.join("cu");
    if own.is_dir() { own } else { package.join("../../kernels/cu") }
}

/// All of them, by name.
pub fn all() -> Vec<PathBuf> {
    in_folder(&folder(), "cu")
}

/// What they include.
pub fn headers() -> Vec<PathBuf> {
    in_folder(&folder(), "cuh")
}

/// The files that end so.
pub fn in_folder(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).expect("the sources are there").flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == ending)).collect();
    files.sort();
    files
}

/// The kernels that a source defines: a line `KERNEL(name, …` each.
pub fn kernels(source: &Path) -> Vec<String> {
    let text = fs::read_to_string(source).expect("a source can be read");
    let lines = text.lines().filter_map(|line| line.strip_prefix("KERNEL("));
    let names: Vec<String> = lines.filter_map(|rest| Some(rest.split_once(',')?.0.to_owned())).collect();
    assert!(!names.is_empty(), "{} has kernels", source.display());
    names
}
