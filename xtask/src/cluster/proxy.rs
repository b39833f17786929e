//! kube-proxy: one for all nodes, since they share the cluster's network namespace.

use std::fs::File;

use anyhow::Result;

use super::control_plane::INSIDE;
use super::daemon::{Daemon, Mounts};
use super::kubeconfig;
use super::network::POD_CIDR;
use super::node::node_name;
use super::place::Place;
use crate::go::Binaries;

/// Starts it; the API server must be ready.
pub fn start(place: &Place, network: &File, binaries: &Binaries) -> Result<()> {
    let config = place.run.join("proxy");
    kubeconfig::write(place, &config, "proxy", INSIDE)?;
    let daemon = Daemon {
        name: "kube-proxy",
        program: &binaries.kube_proxy,
        args: vec![
            format!("--kubeconfig={}", config.display()),
            format!("--hostname-override={}", node_name(0)),
            format!("--cluster-cidr={POD_CIDR}"),
            "--proxy-mode=iptables".into(),
            // The kernel refuses these settings inside a network namespace.
            "--conntrack-max-per-core=0".into(),
            "--conntrack-tcp-timeout-established=0".into(),
            "--conntrack-tcp-timeout-close-wait=0".into(),
        ],
        network,
        mounts: Mounts::Host,
        inherit: None,
    };
    daemon.start(place).map(drop)
}
