//! One node: its own containerd and kubelet, in a mount namespace of their own where both find everything at the
//! default paths.

mod containerd;
mod kubelet;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::daemon::{Daemon, Mounts};
use super::namespace::{self, Bind};
use super::place::Place;
use super::process::Process;
use super::{cgroup, network, wait_until};
use crate::go::Binaries;

pub use containerd::{import, prune};

/// What a node sees at these paths is its own. The folders on the host stay empty.
///
/// kept or not, folder of the node, path
const OWN_FOLDERS: [(bool, &str, &str); 5] = [
    (true, "containerd", "/var/lib/containerd"),
    (false, "containerd", "/run/containerd"),
    (true, "kubelet", "/var/lib/kubelet"),
    (true, "cni", "/var/lib/cni"),
    (true, "log", "/var/log"),
];

/// The node's name in Kubernetes.
pub fn node_name(node: usize) -> String {
    format!("node-{node}")
}

/// Starts the node's containerd and waits until it answers.
pub fn start_containerd(
    place: &Place,
    network: &File,
    binaries: &Binaries,
    cni: &Path,
    node: usize,
) -> Result<()> {
    let (config, cni_conf) = (place.node_run(node).join("containerd.toml"), place.node_run(node).join("cni"));
    let mounts = own_mounts(place, node)?;
    containerd::write_config(&config, cni, &cni_conf, &network::pod_cidr(node))?;
    fs::write(dirty(place, node), "")?;
    start(place, network, binaries, mounts, node, &config)
}

/// Starts the node's kubelet, beside its containerd; the API server must be ready.
pub fn start_kubelet(
    place: &Place,
    network: &File,
    binaries: &Binaries,
    node: usize,
    nodes: usize,
) -> Result<()> {
    let containerd = Process::recorded(&place.pid_file(&containerd_name(node)));
    let containerd = containerd.with_context(|| format!("{} has no running containerd", node_name(node)))?;
    cgroup::make(place, node)?;
    let daemon = Daemon {
        name: &format!("kubelet-{node}"),
        program: &binaries.kubelet,
        args: kubelet::write_config(place, node, nodes)?,
        network,
        mounts: Mounts::Of(namespace::mounts_of(containerd.pid)?),
        inherit: None,
    };
    daemon.start(place).map(drop)
}

/// The socket of the node's containerd, as seen from the host.
pub fn socket(place: &Place, node: usize) -> PathBuf {
    place.node_run(node).join("containerd/containerd.sock")
}

/// Whether the node has containers that [`prune`] has to forget once it has ended.
pub fn is_dirty(place: &Place, node: usize) -> bool {
    dirty(place, node).exists()
}

/// There from before the node's first container until [`prune`] has forgotten the last.
fn dirty(place: &Place, node: usize) -> PathBuf {
    place.node_keep(node).join("dirty")
}

fn containerd_name(node: usize) -> String {
    format!("containerd-{node}")
}

fn own_mounts(place: &Place, node: usize) -> Result<Mounts> {
    let mut binds = Vec::new();
    for (kept, folder, path) in OWN_FOLDERS {
        let own = if kept { place.node_keep(node) } else { place.node_run(node) }.join(folder);
        for folder in [own.as_path(), Path::new(path)] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        binds.push(Bind::new(&own, path)?);
    }
    Ok(Mounts::Own(binds))
}

fn start(
    place: &Place,
    network: &File,
    binaries: &Binaries,
    mounts: Mounts,
    node: usize,
    config: &Path,
) -> Result<()> {
    let name = containerd_name(node);
    let args = vec!["--config".into(), config.display().to_string()];
    let daemon = Daemon { name: &name, program: &binaries.containerd, args, network, mounts, inherit: None };
    daemon.start(place)?;
    wait_until(&format!("{name} to answer"), std::time::Duration::from_secs(30), || {
        super::daemon::check_alive(place)?;
        Ok(containerd::answers(binaries, &socket(place, node)))
    })
}
