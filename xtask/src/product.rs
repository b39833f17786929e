//! What demo and test install: the two programs as images, the talking model as an image, the chart.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::image::{self, Image};
use crate::step::seconds;
use crate::{cache, cmd, model, target};

/// Reference of the talking model's image, as in `examples/smol-moe.yaml`.
pub const MODEL_IMAGE: &str = "localhost/coterie-smol-moe:1";

/// Everything that has to be on the nodes before the chart is installed.
pub struct Product {
    /// `coterie-operator` as an image.
    pub operator: Image,
    /// `coterie` as an image.
    pub runtime: Image,
    /// The talking model's folder as an image.
    pub model: Image,
}

impl Product {
    /// Builds what is not built yet.
    pub fn build() -> Result<Product> {
        let programs = programs()?;
        let model = model::cached()?;
        Ok(Product {
            operator: image::from_binary(
                "localhost/coterie-operator:dev",
                &programs.join("coterie-operator"),
                "/usr/local/bin/coterie-operator",
            )?,
            runtime: image::from_binary(
                "localhost/coterie:dev",
                &programs.join("coterie"),
                "/usr/local/bin/coterie",
            )?,
            model: image::from_folder(MODEL_IMAGE, &model)?,
        })
    }

    /// All of them, the small ones first.
    pub fn images(&self) -> [&Image; 3] {
        [&self.operator, &self.runtime, &self.model]
    }
}

/// Builds both programs; the folder they are in.
pub fn programs() -> Result<PathBuf> {
    let target = target::folder()?;
    let mut cargo = cargo()?;
    // The whole workspace, as the tests select it: with fewer packages cargo unites fewer features and builds their
    // dependencies a second time.
    cargo.args(["build", "--release", "--locked", "--workspace", "--bins"]);
    shown("cargo build --release: coterie-operator, coterie", &mut cargo)?;
    Ok(target.join("release"))
}

/// Runs a command that says itself what it does, between a line that names it and one that gives the time.
pub fn shown(what: &str, command: &mut Command) -> Result<()> {
    eprintln!("  {what}");
    let started = Instant::now();
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {what}"))?;
    ensure!(status.success(), "`{}` failed: {status}; what it printed above says why", cmd::line(command));
    eprintln!("  {what}: {}", seconds(started.elapsed()));
    Ok(())
}

/// Cargo, in this checkout, building into the cache.
pub fn cargo() -> Result<Command> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(cache::checkout()).env("CARGO_TARGET_DIR", target::folder()?);
    // This program itself runs under cargo, whose variables describe xtask.
    for (name, _) in std::env::vars_os() {
        let ours =
            name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR");
        if ours {
            cargo.env_remove(name);
        }
    }
    Ok(cargo)
}
