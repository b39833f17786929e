//! The cgroups of a node's pods. Each kubelet gets a root of its own: kubelets that share one end each other's pods
//! as orphans. A machine may have the old hierarchies (v1, one per controller) or the unified one (v2).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::place::Place;

/// The controllers a kubelet cannot do without on the unified hierarchy.
const UNIFIED_NEEDS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// What this machine's /sys/fs/cgroup is.
#[derive(Debug, PartialEq, Eq)]
pub enum Hierarchies {
    /// Mount points of the v1 hierarchies; a v2 one beside them, without controllers, is among them.
    Split(Vec<PathBuf>),
    /// The unified hierarchy's mount point.
    Unified(PathBuf),
}

/// The cgroup below which a node's pods live, as its kubelet is told.
pub fn root_of(place: &Place, node: usize) -> String {
    format!("/{}{node}", prefix(place))
}

/// Makes a node's root in every hierarchy.
pub fn make(place: &Place, node: usize) -> Result<()> {
    let name = root_of(place, node);
    match Hierarchies::of_machine()? {
        Hierarchies::Split(mounts) => mounts.iter().try_for_each(|mount| make_split(mount, &name)),
        Hierarchies::Unified(mount) => make_unified(&mount, &name),
    }
}

/// Ends every process in the cluster's cgroups and removes them, down to the last one.
pub fn clear(place: &Place) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let roots = roots(place)?;
        let left = roots.iter().map(|root| kill_below(root)).sum::<usize>();
        let removed = roots.iter().filter(|root| remove_below(root).is_ok()).count();
        if removed == roots.len() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{left} processes are still in the cgroups {roots:?}; look for processes in state D");
        }
        thread::sleep(Duration::from_millis(30));
    }
}

/// The cgroups that exist for this cluster, of however many nodes.
pub fn roots(place: &Place) -> Result<Vec<PathBuf>> {
    let mounts = match Hierarchies::of_machine()? {
        Hierarchies::Split(mounts) => mounts,
        Hierarchies::Unified(mount) => vec![mount],
    };
    let prefix = prefix(place);
    let own = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix(&prefix).is_some_and(|node| node.parse::<usize>().is_ok())
    };
    Ok(mounts.iter().flat_map(|mount| children(mount)).filter(own).collect())
}

impl Hierarchies {
    fn of_machine() -> Result<Hierarchies> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
        Hierarchies::from_mounts(&mounts)
    }

    /// Lines of /proc/self/mounts: device, mount point, type, options.
    fn from_mounts(mounts: &str) -> Result<Hierarchies> {
        let mut split = Vec::new();
        for line in mounts.lines() {
            let mut words = line.split(' ').skip(1);
            let (Some(point), Some(kind)) = (words.next(), words.next()) else { continue };
            match kind {
                "cgroup2" if point == "/sys/fs/cgroup" => return Ok(Hierarchies::Unified(point.into())),
                "cgroup" | "cgroup2" => split.push(PathBuf::from(point)),
                _ => {}
            }
        }
        if split.is_empty() {
            bail!("no cgroup hierarchy is mounted below /sys/fs/cgroup; a kubelet cannot run here");
        }
        Ok(Hierarchies::Split(split))
    }
}

fn prefix(place: &Place) -> String {
    format!("coterie-{}-node-", place.id)
}

// A new cpuset is empty, and nothing may run in it until it has processors and memory.
fn make_split(mount: &Path, name: &str) -> Result<()> {
    let folder = mount.join(name.trim_start_matches('/'));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = fs::read_to_string(mount.join(file)) {
            fs::write(folder.join(file), value.trim())
                .with_context(|| format!("cannot set {file} of the cgroup {}", folder.display()))?;
        }
    }
    Ok(())
}

fn make_unified(mount: &Path, name: &str) -> Result<()> {
    let offered = fs::read_to_string(mount.join("cgroup.controllers"))?;
    let offered: Vec<_> = offered.split_whitespace().collect();
    if let Some(missing) = UNIFIED_NEEDS.iter().find(|need| !offered.contains(need)) {
        bail!(
            "{} has no `{missing}` controller, which the kubelet needs; run outside of a container",
            mount.display()
        );
    }
    for controller in &offered {
        let enabled = fs::write(mount.join("cgroup.subtree_control"), format!("+{controller}"));
        if UNIFIED_NEEDS.contains(controller) {
            enabled.with_context(|| format!("cannot give the `{controller}` controller to child cgroups"))?;
        }
    }
    let folder = mount.join(name.trim_start_matches('/'));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the cgroup {}", folder.display()))
}

/// Sends KILL to every process in the cgroup and below; returns how many there were.
fn kill_below(cgroup: &Path) -> usize {
    let below: usize = children(cgroup).iter().map(|child| kill_below(child)).sum();
    let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    // 0 stands for a process of another pid namespace, and must not be signalled: to kill it means our own group.
    let pids: Vec<i32> = procs.lines().filter_map(|pid| pid.parse().ok()).filter(|&pid| pid > 0).collect();
    for &pid in &pids {
        // SAFETY: kill takes any pid; the process was in the cluster's own cgroup just now.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    below + pids.len()
}

fn remove_below(cgroup: &Path) -> std::io::Result<()> {
    for child in children(cgroup) {
        remove_below(&child)?;
    }
    match fs::remove_dir(cgroup) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn children(cgroup: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_unified_machines_are_told_apart() {
        let split = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                     cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\nproc /proc proc rw 0 0\n";
        let expected = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(PathBuf::from).to_vec();
        assert_eq!(Hierarchies::from_mounts(split).unwrap(), Hierarchies::Split(expected));
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(Hierarchies::from_mounts(unified).unwrap(), Hierarchies::Unified("/sys/fs/cgroup".into()));
        assert!(Hierarchies::from_mounts("proc /proc proc rw 0 0\n").is_err());
    }

    #[test]
    fn a_split_root_gets_its_parents_processors() {
        let mount = tempfile::tempdir().unwrap();
        fs::write(mount.path().join("cpuset.cpus"), "0-1\n").unwrap();
        fs::write(mount.path().join("cpuset.mems"), "0\n").unwrap();
        make_split(mount.path(), "/x").unwrap();
        assert_eq!(fs::read_to_string(mount.path().join("x/cpuset.cpus")).unwrap(), "0-1");
    }

    #[test]
    fn a_unified_hierarchy_without_memory_is_refused() {
        let mount = tempfile::tempdir().unwrap();
        fs::write(mount.path().join("cgroup.controllers"), "cpu cpuset pids\n").unwrap();
        assert!(make_unified(mount.path(), "/x").unwrap_err().to_string().contains("`memory`"));
        fs::write(mount.path().join("cgroup.controllers"), "cpu cpuset memory pids io\n").unwrap();
        make_unified(mount.path(), "/x").unwrap();
        assert!(mount.path().join("x").is_dir());
    }
}
