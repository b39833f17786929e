//! A node's kubelet: its configuration.

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;

use super::node_name;
use crate::cluster::control_plane::INSIDE;
use crate::cluster::network::{DNS_IP, node_ip};
use crate::cluster::place::Place;
use crate::cluster::{cgroup, kubeconfig};

/// Memory that a node keeps back for everything that is not a pod.
const RESERVED_MIB: u64 = 256;

/// Writes the kubelet's files and returns its arguments.
pub fn write_config(place: &Place, node: usize, nodes: usize) -> Result<Vec<String>> {
    let (run, name) = (place.node_run(node), node_name(node));
    let path = |file: &str| run.join(file).display().to_string();
    kubeconfig::write(place, &run.join("kubelet-client"), &name, INSIDE)?;
    // Pods see the cluster's DNS alone; the host's search domains are not theirs.
    fs::write(run.join("resolv.conf"), "")?;
    let memory = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let memory = total_mib(&memory).context("/proc/meminfo names no MemTotal")?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "port": 10300 + node,
        "healthzPort": 10400 + node,
        "tlsCertFile": place.pki(&format!("{name}.crt")),
        "tlsPrivateKeyFile": place.pki(&format!("{name}.key")),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": place.pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup::root_of(place, node),
        "failCgroupV1": false,
        "failSwapOn": false,
        "clusterDNS": [DNS_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": path("resolv.conf"),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "systemReserved": {"memory": format!("{}Mi", reserved_mib(memory, nodes))},
        // The disk is the machine's, not the node's: a full one must not evict pods or delete images.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
    });
    fs::write(run.join("kubelet.json"), config.to_string())?;
    Ok(vec![
        format!("--config={}", path("kubelet.json")),
        format!("--kubeconfig={}", path("kubelet-client")),
        format!("--hostname-override={name}"),
        format!("--node-ip={}", node_ip(node)),
    ])
}

/// The nodes share one machine: each may give its pods an equal part of the memory, not all of it.
fn reserved_mib(total: u64, nodes: usize) -> u64 {
    total - total / nodes.max(1) as u64 + RESERVED_MIB
}

fn total_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_never_promise_more_memory_than_there_is() {
        let total = total_mib("MemTotal:       24684140 kB\nMemFree: 1 kB\n").unwrap();
        assert_eq!(total, 24105);
        for nodes in 1..5 {
            let allocatable = total - reserved_mib(total, nodes);
            assert!(allocatable * nodes as u64 <= total);
            assert!(allocatable * nodes as u64 > total * 9 / 10);
        }
    }
}
