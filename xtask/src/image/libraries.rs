//! The shared libraries an ELF binary needs, as this machine's loader resolves them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The libraries and the loader itself, at the paths under which the loader looks for them; none if it is static.
pub fn of(binary: &Path) -> Result<Vec<PathBuf>> {
    let result = Command::new("ldd").arg(binary).output().context("cannot start `ldd`")?;
    let (stdout, stderr) = (String::from_utf8_lossy(&result.stdout), String::from_utf8_lossy(&result.stderr));
    if !result.status.success() {
        if stderr.contains("not a dynamic executable") || stdout.contains("not a dynamic executable") {
            return Ok(Vec::new());
        }
        bail!("`ldd {}` failed: {}", binary.display(), stderr.trim());
    }
    parse(&stdout).with_context(|| format!("cannot put {} into an image", binary.display()))
}

/// Lines of ldd: `name => /path (0x…)`, `/path/of/loader (0x…)`, `linux-vdso.so.1 (0x…)`, `statically linked`.
fn parse(listing: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in listing.lines().map(str::trim) {
        let target = line.split_once(" => ").map_or(line, |(_, target)| target);
        if target.starts_with("not found") {
            bail!("{} is not installed on this machine", line.split(" => ").next().unwrap_or(line));
        }
        if target.starts_with('/') {
            libraries.push(PathBuf::from(target.split(" (").next().unwrap_or(target)));
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loader_and_libraries_are_found_and_the_vdso_is_not_a_file() {
        let listing = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x2)\n\t/lib64/ld-linux-\
                       x86-64.so.2 (0x3)\n";
        let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse(listing).unwrap(), paths);
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = parse("\tlibcudart.so.12 => not found\n").unwrap_err();
        assert_eq!(error.to_string(), "libcudart.so.12 is not installed on this machine");
    }

    #[test]
    fn a_static_program_needs_nothing() {
        assert_eq!(parse("\tstatically linked\n").unwrap(), Vec::<PathBuf>::new());
    }
}
