//! The sandbox image: the program that holds a pod's namespaces open.

use std::fs;
use std::process::Command;

use anyhow::Result;

use super::{Image, from_binary};
use crate::{cache, cmd};

/// The name that containerd's configuration pins.
pub const PAUSE: &str = "localhost/coterie-pause:1";

/// Compiles the pause program, a static binary, and makes its image.
pub fn pause() -> Result<Image> {
    let source = cache::checkout().join("e2e/cluster/pause.rs");
    let binary = cache::folder("images")?.join("pause");
    let changed = |path| fs::metadata(path).and_then(|found| found.modified()).ok();
    if changed(&binary).is_none_or(|built| changed(&source).is_some_and(|written| written > built)) {
        let unfinished = binary.with_extension("unfinished");
        let flags =
            ["--edition=2024", "-O", "-Cstrip=symbols", "-Cpanic=abort", "-Ctarget-feature=+crt-static"];
        cmd::run(Command::new("rustc").args(flags).arg("-o").arg(&unfinished).arg(&source))?;
        fs::rename(&unfinished, &binary)?;
    }
    from_binary(PAUSE, &binary, "/pause")
}
