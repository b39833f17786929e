//! Programs that come from the distribution: looked for first, installed only when one is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::cmd;
use crate::step::Step;

/// Debian packages whose name is not that of the program they bring.
const PACKAGES: [(&str, &str); 1] = [("ip", "iproute2")];

/// What a node of the embedded cluster needs in PATH.
const NODE_PROGRAMS: [&str; 4] = ["ip", "iptables", "mount", "runc"];

/// Where distributions put the CNI plugins.
const CNI_FOLDERS: [&str; 4] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni", "/usr/lib/cni/bin"];
const CNI_PACKAGE: &str = "containernetworking-plugins";

/// Makes sure that every program a node needs is there. Returns the folder of the CNI plugins.
pub fn ensure_node_programs() -> Result<PathBuf> {
    let cni = cni_folder().is_none().then_some(CNI_PACKAGE);
    install(&NODE_PROGRAMS, missing(&NODE_PROGRAMS).chain(cni).collect())?;
    match cni_folder() {
        Some(folder) => Ok(folder),
        None => bail!("no CNI plugin `ptp` in {}; install {CNI_PACKAGE}", CNI_FOLDERS.join(", ")),
    }
}

/// Makes sure that these programs are in PATH, installing the packages that bring them.
pub fn ensure(programs: &[&'static str]) -> Result<()> {
    install(programs, missing(programs).collect())
}

fn install(programs: &[&str], packages: Vec<&str>) -> Result<()> {
    let step = Step::start(format!("programs of the distribution: {}", programs.join(", ")));
    if packages.is_empty() {
        step.cached();
        return Ok(());
    }
    if !Path::new("/etc/debian_version").exists() || !cmd::in_path("apt-get") {
        bail!(
            "this machine lacks {} and is no Debian or Ubuntu; install them and run again",
            packages.join(", ")
        );
    }
    if !is_root() {
        bail!("this machine lacks {}; run again as root, or: apt-get install {0}", packages.join(" "));
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    cmd::run(apt().args(["-q", "update"]))?;
    cmd::run(apt().args(["-q", "-y", "install", "--no-install-recommends"]).args(&packages))?;
    step.note(format!("installed {}", packages.join(" ")));
    Ok(())
}

/// Whether this process may make namespaces, mounts and cgroups.
pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn missing<'a>(programs: &[&'a str]) -> impl Iterator<Item = &'a str> {
    programs.iter().filter(|program| !is_installed(program)).map(|program| {
        PACKAGES.iter().find(|(name, _)| name == program).map_or(*program, |(_, package)| *package)
    })
}

// A user's PATH often lacks sbin; root's daemons get it anyway.
fn is_installed(program: &str) -> bool {
    cmd::in_path(program)
        || ["/usr/sbin", "/sbin"].iter().any(|folder| Path::new(folder).join(program).is_file())
}

fn cni_folder() -> Option<PathBuf> {
    CNI_FOLDERS.iter().map(Path::new).find(|folder| folder.join("ptp").is_file()).map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_programs_are_installed_by_their_package() {
        assert_eq!(missing(&["sh", "no-such-program"]).collect::<Vec<_>>(), ["no-such-program"]);
        let package =
            |program| PACKAGES.iter().find(|(name, _)| *name == program).map(|(_, package)| *package);
        assert_eq!(package("ip"), Some("iproute2"));
    }
}
