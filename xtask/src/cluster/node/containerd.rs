//! A node's containerd: its configuration, its images, and forgetting its containers after the node has ended.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::{containerd_name, dirty, is_dirty, own_mounts, socket, start};
use crate::cluster::namespace;
use crate::cluster::place::Place;
use crate::cluster::process::{self, Process};
use crate::cmd;
use crate::go::Binaries;
use crate::image::{PAUSE, Reference};

/// Writes containerd's configuration and the node's network configuration.
pub fn write_config(config: &Path, cni: &Path, cni_conf: &Path, pod_cidr: &str) -> Result<()> {
    fs::create_dir_all(cni_conf)?;
    // Point to point, so that pods of one node reach each other through the node's own rules: behind a bridge an
    // answer would bypass them, and a Service would not work from the node its pod is on.
    let chain = json!({
        "cniVersion": "1.0.0",
        "name": "coterie",
        "plugins": [
            {"type": "ptp", "ipMasq": false, "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": pod_cidr}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": "/run/containerd/addresses",
            }},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    fs::write(cni_conf.join("10-coterie.conflist"), chain.to_string())?;
    let text = format!(
        r#"version = 3
disabled_plugins = ["io.containerd.nri.v1.nri"]
[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
disable_apparmor = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{}"]
conf_dir = "{}"
"#,
        cni.display(),
        cni_conf.display(),
    );
    fs::write(config, text).with_context(|| format!("cannot write {}", config.display()))
}

/// Whether containerd serves its socket.
pub fn answers(binaries: &Binaries, socket: &Path) -> bool {
    socket.exists() && cmd::run(ctr(binaries, socket).args(["--connect-timeout", "2s", "version"])).is_ok()
}

/// Loads a tar into the node's image store, unless every image it names is there already, whole and unpacked.
/// Returns whether there was anything to do.
pub fn import(
    place: &Place,
    binaries: &Binaries,
    node: usize,
    tar: &Path,
    images: &[Reference],
) -> Result<bool> {
    let socket = socket(place, node);
    if !images.is_empty() && images.iter().all(|image| has(binaries, &socket, image)) {
        return Ok(false);
    }
    // Written by ctr itself rather than passed to containerd in small messages: four times as fast.
    cmd::run(ctr(binaries, &socket).args(["images", "import", "--local"]).arg(tar))
        .with_context(|| format!("cannot load {} into node-{node}", tar.display()))?;
    Ok(true)
}

/// Columns of `ctr images check`: REF TYPE DIGEST STATUS SIZE UNPACKED; STATUS and SIZE hold spaces.
fn has(binaries: &Binaries, socket: &Path, image: &Reference) -> bool {
    let mut check = ctr(binaries, socket);
    let listing = cmd::output(check.args(["images", "check", &format!("name=={}", image.name)]));
    listing.is_ok_and(|listing| is_whole(&listing, image))
}

fn is_whole(listing: &str, image: &Reference) -> bool {
    listing.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.first() == Some(&image.name.as_str())
            && words.get(2) == Some(&image.digest.as_str())
            && words.get(3) == Some(&"complete")
            && words.last() == Some(&"true")
    })
}

/// Forgets the containers, sandboxes and snapshots of a node that has ended, and keeps its images. Else the next
/// start would first clean up after every pod of the last one. Does nothing if there is nothing to forget.
pub fn prune(place: &Place, binaries: &Binaries, node: usize) -> Result<()> {
    if !is_dirty(place, node) {
        return Ok(());
    }
    let config = place.node_run(node).join("prune.toml");
    let mounts = own_mounts(place, node)?;
    fs::create_dir_all(place.run.join("pid"))?;
    // Without its Kubernetes part, so that it does not take the containers over before they are removed.
    fs::write(
        &config,
        "version = 3\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.nri.v1.nri\"]\n",
    )?;
    let network = namespace::new_network()?;
    start(place, &network, binaries, mounts, node, &config)?;
    let forgotten = forget(binaries, &socket(place, node));
    if let Some(process) = Process::recorded(&place.pid_file(&containerd_name(node))) {
        process::end(&[process], Duration::from_secs(5))?;
    }
    fs::remove_file(place.pid_file(&containerd_name(node)))?;
    forgotten.with_context(|| format!("cannot forget the containers of node-{node}"))?;
    let mark = dirty(place, node);
    fs::remove_file(&mark).with_context(|| format!("cannot remove {}", mark.display()))
}

fn forget(binaries: &Binaries, socket: &Path) -> Result<()> {
    let remove = |kind: &[&str], names: Vec<String>| {
        if names.is_empty() { Ok(()) } else { cmd::run(ctr(binaries, socket).args(kind).args(names)) }
    };
    let listing = |args: &[&str]| cmd::output(ctr(binaries, socket).args(args));
    remove(&["containers", "rm"], first_words(&listing(&["containers", "ls", "-q"])?, 0))?;
    remove(&["sandboxes", "rm", "--force"], first_words(&listing(&["sandboxes", "ls"])?, 1))?;
    // `rm` takes one snapshot at a time.
    for name in uncommitted(&listing(&["snapshots", "ls"])?) {
        remove(&["snapshots", "rm"], vec![name])?;
    }
    remove(&["leases", "rm"], first_words(&listing(&["leases", "ls"])?, 1))
}

/// The snapshots that belong to no image: a container's files, or an image that was mounted as a volume.
/// Columns of `ctr snapshots ls`: KEY PARENT KIND; PARENT may be empty.
fn uncommitted(listing: &str) -> Vec<String> {
    let lines = listing.lines().skip(1).filter(|line| !line.trim_end().ends_with("Committed"));
    lines.flat_map(|line| first_words(line, 0)).collect()
}

fn first_words(listing: &str, header_lines: usize) -> Vec<String> {
    listing
        .lines()
        .skip(header_lines)
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_string)
        .collect()
}

fn ctr(binaries: &Binaries, socket: &Path) -> Command {
    let mut command = Command::new(&binaries.ctr);
    command.arg("--address").arg(socket).args(["--namespace", "k8s.io"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_of_images_are_never_forgotten() {
        let listing = "KEY         PARENT     KIND      \nsha256:aa              Committed \n\
                       sha256:bb   sha256:aa  Committed \n4711        sha256:bb  Active    \n\
                       /run/x      sha256:aa  View      \n";
        assert_eq!(uncommitted(listing), ["4711", "/run/x"]);
        assert!(uncommitted("KEY PARENT KIND \n").is_empty());
    }

    #[test]
    fn only_a_whole_unpacked_image_of_this_digest_counts() {
        let image = Reference { name: "localhost/a:1".into(), digest: "sha256:aa".into() };
        let header = "REF TYPE DIGEST STATUS SIZE UNPACKED\n";
        let line = |digest: &str, status: &str, unpacked: &str| {
            format!("{header}localhost/a:1 application/x {digest} {status} 1.0 MiB/1.0 MiB {unpacked}\n")
        };
        assert!(is_whole(&line("sha256:aa", "complete (3/3)", "true"), &image));
        assert!(!is_whole(&line("sha256:bb", "complete (3/3)", "true"), &image));
        assert!(!is_whole(&line("sha256:aa", "incomplete (2/3)", "true"), &image));
        assert!(!is_whole(&line("sha256:aa", "complete (3/3)", "false"), &image));
        assert!(!is_whole(header, &image));
    }
}
