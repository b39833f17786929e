//! `cargo xtask gpu`: the CUDA kernels, and the engine on them, on this machine's GPU; and their compiler, which needs none.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{cache, cmd, product, python};

/// Compiles the kernels, and checks them on the GPU. Without a network, those of an earlier run are checked.
pub fn run() -> Result<()> {
    let cubins = cache::folder("cubins")?;
    match nvrtc()? {
        Some(nvrtc) => {
            let mut cargo = compile(&nvrtc)?;
            cargo.env("COTERIE_CUBINS", &cubins);
            product::shown("cargo test: CUDA kernels for every architecture", &mut cargo)?;
        }
        None => eprintln!("  without NVRTC, the kernels in {} are taken", cubins.display()),
    }
    let mut cargo = product::cargo()?;
    cargo.args(["test", "--release", "--locked", "--package", "coterie-kernels"]);
    cargo.args(["--package", "coterie-engine", "--test", "gpu", "--"]);
    cargo.args(["--ignored", "--nocapture"]).env("COTERIE_CUBINS", &cubins);
    product::shown("cargo test: CUDA kernels and the engine on the GPU", &mut cargo)
}

/// The test that compiles every kernel for every architecture.
pub fn compile(nvrtc: &Path) -> Result<Command> {
    let mut cargo = product::cargo()?;
    cargo.args(["test", "--release", "--locked", "--workspace", "--test", "cubins", "--"]);
    cargo.args(["--ignored", "--nocapture"]).env("COTERIE_NVRTC", nvrtc);
    Ok(cargo)
}

/// The compiler's library, fetched on first use. None if no package index can be reached.
pub fn nvrtc() -> Result<Option<PathBuf>> {
    let requirements = cache::checkout().join("kernels/cu/requirements.txt");
    let Some(interpreter) = python::environment("cuda", &requirements)? else { return Ok(None) };
    let packages = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let packages = cmd::output(Command::new(interpreter).args(["-c", packages]))?;
    Ok(Some(Path::new(packages.trim()).join("nvidia/cu13/lib/libnvrtc.so.13")))
}
