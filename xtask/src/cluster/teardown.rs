//! Ends a cluster, whole or wrecked: its processes, its containers, its cgroups, its files. What makes the next start
//! fast stays: each node's images.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::daemon::{self, MARK};
use super::place::Place;
use super::process::{self, Process};
use super::{cgroup, node};
use crate::go::Binaries;

/// How long a daemon may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// Folders of a node that must not outlive it.
const NODE_STATE: [&str; 3] = ["kubelet", "cni", "log"];

/// Whether there is anything to end.
pub fn is_needed(place: &Place) -> Result<bool> {
    let dirty = place.kept_nodes().into_iter().any(|node| node::is_dirty(place, node));
    Ok(dirty || place.run.exists() || !left_processes(place).is_empty() || !cgroup::roots(place)?.is_empty())
}

/// Ends everything. Works from any state, and again after it was itself interrupted.
pub fn run(place: &Place, binaries: &Binaries) -> Result<()> {
    // Kubelets first: while they live they start again what is ended.
    let daemons = daemon::recorded(place);
    let kubelets = daemons.iter().filter(|(name, _)| name.starts_with("kubelet"));
    let kubelets: Vec<_> = kubelets.filter_map(|(_, process)| process.clone()).collect();
    process::end(&kubelets, PATIENCE)?;
    cgroup::clear(place)?;
    process::end(&left_processes(place), PATIENCE)?;
    // A daemon that was just starting another may have been faster.
    process::end(&left_processes(place), PATIENCE)?;
    cgroup::clear(place)?;
    unmount_below(&place.run)?;
    unmount_below(&place.keep)?;
    remove(&place.run)?;
    for node in place.kept_nodes() {
        for folder in NODE_STATE {
            remove(&place.node_keep(node).join(folder))?;
        }
    }
    prune_nodes(place, binaries)?;
    remove(&place.run)?;
    remove(&place.keep.join("etcd"))?;
    remove(&place.keep.join("pki"))?;
    remove(&place.kubeconfig())
}

/// Removes what the next start would be fast with; the cluster must have ended.
pub fn purge(place: &Place) -> Result<()> {
    unmount_below(&place.keep)?;
    remove(&place.keep)
}

/// Daemons by their pid files, and whatever they started by the mark it inherited.
fn left_processes(place: &Place) -> Vec<Process> {
    let mut left = process::marked(MARK, &place.keep.display().to_string());
    for process in daemon::recorded(place).into_iter().filter_map(|(_, process)| process) {
        if process.lives() && !left.contains(&process) {
            left.push(process);
        }
    }
    left
}

fn prune_nodes(place: &Place, binaries: &Binaries) -> Result<()> {
    thread::scope(|scope| {
        let nodes = place.kept_nodes();
        let workers: Vec<_> =
            nodes.into_iter().map(|node| scope.spawn(move || node::prune(place, binaries, node))).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(pruned) => pruned,
            Err(_) => anyhow::bail!("the thread that cleans a node up panicked"),
        })
    })
}

/// Mounts of a node live in its own namespace and go with it; this is for what somebody mounted by hand.
fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(folder)).collect();
    points.reverse();
    for point in points {
        let path = std::ffi::CString::new(point.as_os_str().as_encoded_bytes())?;
        // SAFETY: a C string that outlives the call.
        if unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } != 0 {
            let error = std::io::Error::last_os_error();
            return Err(error).with_context(|| format!("cannot unmount {}", point.display()));
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}
