//! Python, for programs that test us from outside: a virtual environment that holds exactly what a requirements file
//! pins by hash, kept in the cache under the file's own hash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ring::digest;

use crate::step::Step;
use crate::{cache, cmd};

/// By these words pip says that it reached no package index.
const UNREACHABLE: [&str; 4] =
    ["NewConnectionError", "ConnectTimeoutError", "ProxyError", "Temporary failure in name resolution"];

/// The interpreter of the environment that `requirements` describes, made on first use. None if no package index can
/// be reached to make it from.
pub fn environment(name: &str, requirements: &Path) -> Result<Option<PathBuf>> {
    let pinned = fs::read(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let version = cmd::output(&mut python("--version"))?;
    let key = digest::digest(&digest::SHA256, &[&pinned, version.as_bytes()].concat());
    let key: String = key.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = cache::folder("python")?.join(format!("{name}-{key}"));
    let (interpreter, complete) = (folder.join("bin/python"), folder.join("complete"));

    let step = Step::start(format!("Python packages of {name}"));
    if complete.is_file() {
        step.cached();
        return Ok(Some(interpreter));
    }
    if folder.exists() {
        // An interrupted run left it.
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    ensure_module("ensurepip", "python3-venv")?;
    cmd::run(python("-m venv").arg(&folder))?;
    let pip = "-m pip --disable-pip-version-check install --quiet --require-hashes --only-binary=:all:";
    let mut install = Command::new(&interpreter);
    install.args(pip.split(' ')).arg("--requirement").arg(requirements);
    match cmd::run(&mut install) {
        Err(error) if UNREACHABLE.iter().any(|words| format!("{error:#}").contains(words)) => {
            step.note("no package index can be reached");
            return Ok(None);
        }
        result => result?,
    }
    fs::write(&complete, "").with_context(|| format!("cannot write {}", complete.display()))?;
    step.done();
    Ok(Some(interpreter))
}

/// Debian splits parts of Python from it; the package is installed where that is possible.
pub fn ensure_module(module: &str, package: &str) -> Result<()> {
    let is_there =
        || python("-c").arg(format!("import {module}")).output().is_ok_and(|ran| ran.status.success());
    if is_there() {
        return Ok(());
    }
    let apt =
        format!("apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes {package}");
    cmd::run(Command::new("sh").args(["-c", &apt]))?;
    ensure!(is_there(), "`python3 -c 'import {module}'` does not run: install Python 3 with {module}");
    Ok(())
}

/// The system's interpreter with these arguments, which hold no spaces.
pub fn python(arguments: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(arguments.split(' '));
    command
}
