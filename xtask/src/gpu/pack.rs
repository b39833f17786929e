//! The folder that is carried to a machine with a GPU: test binaries, the benchmark, `coterie`, machine code, golden
//! checkpoints, the peers' script, and the program `run`, which needs neither cargo nor a network.

mod glibc;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::step::step;
use crate::{cache, cmd, product};

/// Bytes that a pack may have.
const MOST: u64 = 60 << 20;

const RUN: &str = include_str!("run.sh");

/// What `run` unpacks.
const REST: &str = "rest.tar.gz";

/// Architectures without which a pack is not whole.
const ARCHITECTURES: [&str; 4] = ["sm_80", "sm_90a", "sm_100a", "sm_120a"];

/// Makes the pack in `folder`, with the machine code in `cubins`. What an earlier pack left there is replaced.
pub fn make(folder: &Path, cubins: &Path) -> Result<()> {
    empty(folder)?;
    let rest = folder.join("rest");
    let (bin, root) = (rest.join("bin"), cache::checkout());
    fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;

    let programs = [programs()?, vec![("xtask", std::env::current_exe()?), ("coterie", coterie()?)]].concat();
    let mut oldest = glibc::Version::default();
    for (name, program) in &programs {
        let packed = bin.join(name);
        strip(program, &packed)?;
        oldest = oldest.max(glibc::needed(&fs::read(&packed)?));
    }
    for architecture in ARCHITECTURES {
        copy_folder(&cubins.join(architecture), &rest.join("cubins").join(architecture))
            .with_context(|| format!("there are no kernels for {architecture}; NVRTC makes them where pip reaches a package index"))?;
    }
    golden(&root, &rest.join("checkout"))?;
    let config = rest.join("qwen3-30b-a3b");
    fs::create_dir_all(&config)?;
    for (from, to) in [
        ("docs/bench/qwen3-30b-a3b/config.json", config.join("config.json")),
        ("docs/bench/gpu_peers.py", rest.join("gpu_peers.py")),
    ] {
        fs::copy(root.join(from), &to).with_context(|| format!("cannot copy {from} to {}", to.display()))?;
    }
    fs::write(rest.join("made"), format!("commit\t{}\nneeds\tglibc {oldest}\n", commit(&root)?))?;

    let tar = folder.join(REST);
    step(format!("tar: {REST}"), || {
        cmd::run(Command::new("tar").arg("-czf").arg(&tar).arg("-C").arg(&rest).arg("."))
    })?;
    fs::remove_dir_all(&rest).with_context(|| format!("cannot remove {}", rest.display()))?;
    let run = folder.join("run");
    fs::write(&run, RUN).with_context(|| format!("cannot write {}", run.display()))?;
    cmd::run(Command::new("chmod").arg("755").arg(&run))?;
    let bytes = fs::metadata(&tar)?.len() + RUN.len() as u64;
    ensure!(
        bytes <= MOST,
        "the pack in {} has {bytes} bytes, more than the {MOST} that may be carried: leave something out in xtask/src/gpu/pack.rs",
        folder.display()
    );
    eprintln!("  {}: {:.1} MiB, needs glibc {oldest}", folder.display(), bytes as f64 / f64::from(1 << 20));
    Ok(())
}

/// Makes the folder, or takes an earlier pack out of it. Whatever else is in it stays, and is an error.
fn empty(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.file_name().and_then(|name| name.to_str()) {
            Some("run" | REST) => fs::remove_file(&path)?,
            Some("rest") => fs::remove_dir_all(&path)?,
            _ => bail!("{} is in the way: a pack takes a folder of its own", path.display()),
        }
    }
    Ok(())
}

/// The test binaries and the benchmark, by their names in the pack.
fn programs() -> Result<Vec<(&'static str, PathBuf)>> {
    let mut cargo = product::cargo()?;
    cargo.args(["test", "--release", "--locked", "--workspace", "--test", "gpu", "--bench", "gpu"]);
    cargo.args(["--no-run", "--message-format=json"]);
    let told = step("cargo test --no-run: what runs on a GPU", || cmd::output(&mut cargo))?;
    let mut found = Vec::new();
    for line in told.lines().filter(|line| line.starts_with('{')) {
        let line: Value = serde_json::from_str(line).context("cargo says what is no JSON")?;
        let Some(program) = line["executable"].as_str() else { continue };
        let source = line["target"]["src_path"].as_str().unwrap_or_default();
        found.push((source.to_owned(), PathBuf::from(program)));
    }
    let named = |name: &'static str, source: &str| -> Result<(&'static str, PathBuf)> {
        let program = found.iter().find(|(path, _)| path.ends_with(source));
        let (_, program) = program.with_context(|| format!("cargo built no program of {source}"))?;
        Ok((name, program.clone()))
    };
    Ok(vec![
        named("kernels", "kernels/tests/gpu.rs")?,
        named("engine", "runtime/engine/tests/gpu.rs")?,
        named("speed", "kernels/benches/gpu/main.rs")?,
    ])
}

fn coterie() -> Result<PathBuf> {
    let mut cargo = product::cargo()?;
    cargo.args(["build", "--release", "--locked", "--workspace", "--bin", "coterie"]);
    product::shown("cargo build --release: coterie", &mut cargo)?;
    Ok(crate::target::folder()?.join("release/coterie"))
}

/// A copy without symbols.
fn strip(program: &Path, to: &Path) -> Result<()> {
    if cmd::in_path("strip") {
        return cmd::run(Command::new("strip").arg("-o").arg(to).arg(program));
    }
    fs::copy(program, to)
        .with_context(|| format!("cannot copy {} to {}", program.display(), to.display()))?;
    Ok(())
}

/// The folder's files, and no folders.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The golden checkpoints, and the folders of the packages that tests look for files from.
fn golden(root: &Path, checkout: &Path) -> Result<()> {
    for package in ["kernels", "runtime/engine"] {
        fs::create_dir_all(checkout.join(package))?;
    }
    let folders = |of: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(of).with_context(|| format!("cannot read {}", of.display()))?;
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
        Ok(paths.into_iter().filter(|path| path.is_dir()).collect())
    };
    for family in folders(&root.join("tests/golden"))? {
        for case in folders(&family)? {
            copy_folder(&case, &checkout.join(case.strip_prefix(root)?))?;
        }
    }
    Ok(())
}

/// Which commit is packed.
fn commit(root: &Path) -> Result<String> {
    let git = |words: &[&str]| cmd::output(Command::new("git").current_dir(root).args(words));
    let changed = !git(&["status", "--porcelain"])?.trim().is_empty();
    let commit = git(&["rev-parse", "HEAD"])?;
    Ok(format!("{}{}", commit.trim(), if changed { ", with changes" } else { "" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["run", REST] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        empty(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::write(folder.path().join("thesis"), "").unwrap();
        assert!(empty(folder.path()).unwrap_err().to_string().contains("in the way"));
        assert!(folder.path().join("thesis").is_file());
    }

    #[test]
    fn golden_cases_keep_their_places() {
        let (root, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let case = root.path().join("tests/golden/mixtral/plain");
        fs::create_dir_all(&case).unwrap();
        for path in [case.join("config.json"), root.path().join("tests/golden/make.py")] {
            fs::write(path, "x").unwrap();
        }
        golden(root.path(), out.path()).unwrap();
        assert!(out.path().join("runtime/engine/../../tests/golden/mixtral/plain/config.json").is_file());
        assert!(!out.path().join("tests/golden/make.py").exists());
    }
}
