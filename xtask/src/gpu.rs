//! `cargo xtask gpu`: the CUDA kernels and the engine on this machine's GPU, checked and measured; and their compiler, which
//! needs none. Here or elsewhere the same [`pack`] runs.

mod pack;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cache, cmd, product, python};

/// What is asked for.
#[derive(Debug)]
pub enum Task {
    /// Everything on this machine's GPU; `docs/bench/gpu.md` is the report.
    Here,
    /// A folder that does the same on another machine.
    Pack(PathBuf),
    /// The report of what a run left in the first folder, in the second; packs start it.
    Report(PathBuf, PathBuf),
}

/// Does it.
pub fn run(task: &Task) -> Result<()> {
    match task {
        Task::Here => here(),
        Task::Pack(folder) => packed(folder),
        Task::Report(work, out) => report::write(work, out),
    }
}

/// Compiles the kernels, and packs everything. Without a network, kernels of an earlier run are taken.
fn packed(folder: &Path) -> Result<()> {
    let cubins = cache::folder("cubins")?;
    match nvrtc()? {
        Some(nvrtc) => {
            let mut cargo = compile(&nvrtc)?;
            cargo.env("COTERIE_CUBINS", &cubins);
            product::shown("cargo test: CUDA kernels for every architecture", &mut cargo)?;
        }
        None => eprintln!("  without NVRTC, the kernels in {} are taken", cubins.display()),
    }
    pack::make(folder, &cubins)
}

fn here() -> Result<()> {
    let folder = cache::folder("gpu")?;
    let (pack, out) = (folder.join("pack"), folder.join("out"));
    packed(&pack)?;
    if !driver() {
        bail!(
            "EVERYTHING ON A GPU WAS SKIPPED: there is no CUDA driver here (libcuda.so.1 is not found). Kernels were compiled, nothing \
             was run or measured. Carry {} to a machine with a GPU, and start its `run FOLDER` there",
            pack.display()
        );
    }
    let mut run = Command::new(pack.join("run"));
    run.arg(&out).env("COTERIE_GPU_COMMAND", "cargo xtask gpu");
    let ran = product::shown("run: everything on the GPU", &mut run);
    let (from, to) = (out.join("gpu.md"), cache::checkout().join("docs/bench/gpu.md"));
    fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    eprintln!("  {} is written; figures and logs are in {}", to.display(), out.display());
    ran
}

/// Whether a CUDA driver is installed.
fn driver() -> bool {
    // SAFETY: the driver's own library, which may be loaded; the name ends in a zero byte.
    let library = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
    !library.is_null()
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
