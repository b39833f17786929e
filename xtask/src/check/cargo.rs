//! What cargo itself checks: format, lints, and cargo-deny's rules where cargo-deny is installed.

use super::{Finding, Skipped};
use crate::product;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// Reports code that rustfmt would write otherwise.
pub fn format(root: &Path) -> Result<Vec<Finding>> {
    let checked =
        command(root, &["fmt", "--all", "--", "--check", "-l"])?.output().context("cannot run cargo fmt")?;
    if checked.status.success() {
        return Ok(Vec::new());
    }
    let printed = [checked.stdout, checked.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).replace(&format!("{}/", root.display()), "");
    let what = format!("rustfmt would change or cannot read: {}", printed.trim().replace('\n', ", "));
    Ok(vec![Finding::new("cargo fmt", what, "run `cargo fmt --all`")])
}

/// Reports clippy's warnings. They are printed as clippy prints them.
pub fn lint(root: &Path) -> Result<Vec<Finding>> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    let status = command(root, &arguments)?.status().context("cannot run cargo clippy")?;
    Ok(if status.success() {
        Vec::new()
    } else {
        vec![Finding::new("cargo clippy", "it found what is printed above", "follow its advice")]
    })
}

/// `cargo metadata` for Linux on x86-64: the workspace and everything that it is built from.
pub fn metadata(root: &Path) -> Result<Value> {
    let arguments =
        ["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"];
    let output =
        command(root, &arguments)?.stderr(Stdio::inherit()).output().context("cannot run cargo metadata")?;
    anyhow::ensure!(
        output.status.success(),
        "cargo metadata failed; if Cargo.lock is missing or not up to date, run `cargo update --workspace`"
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Runs cargo-deny's rules for licences, bans and sources over deny.toml.
pub fn deny(root: &Path) -> Result<Vec<Finding>> {
    run_deny(root, &["licenses", "bans", "sources"], "deny.toml")
}

/// Reports crates with a known vulnerability. Their list is not part of cargo-deny and has to be fetched.
pub fn advisories(root: &Path) -> Result<Vec<Finding>> {
    // cargo-deny makes the folder even when it finds nothing to put into it.
    let mut listed = fs::read_dir(root.join(ADVISORIES)).into_iter().flatten().flatten();
    let fetched = listed.any(|entry| entry.path().is_dir());
    if !fetched {
        bail!(Skipped("there is no list of advisories in target/advisories; `cargo deny fetch` brings it"));
    }
    run_deny(root, &["advisories"], "Cargo.lock")
}

fn run_deny(root: &Path, what: &[&str], place: &str) -> Result<Vec<Finding>> {
    let installed =
        command(root, &["deny", "--version"])?.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !installed.is_ok_and(|status| status.success()) {
        bail!(Skipped("cargo-deny is not installed; `cargo install --locked cargo-deny` does that"));
    }
    let arguments = [&["deny", "--offline", "--log-level", "error", "check"], what].concat();
    let passed = command(root, &arguments)?.status().context("cannot run cargo deny")?.success();
    let finding = || Finding::new(place, "cargo-deny found what is printed above", "follow its advice");
    Ok(if passed { Vec::new() } else { vec![finding()] })
}

/// deny.toml's `db-path`.
const ADVISORIES: &str = "target/advisories";

/// `cargo` with `arguments`, in the target folder that `cargo xtask demo` and `test` build in.
pub fn command(root: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = product::cargo()?;
    command.args(arguments).current_dir(root);
    Ok(command)
}
