//! Addresses of the embedded cluster. They may be the same in every cluster: each has its own network namespace.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::namespace;

/// The API server's address on the nodes' bridge.
pub const CONTROL_PLANE_IP: &str = "10.87.0.1";
/// Virtual addresses of Services.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The Service `kubernetes`.
pub const KUBERNETES_IP: &str = "10.96.0.1";
/// The Service of CoreDNS.
pub const DNS_IP: &str = "10.96.0.10";
/// All pods.
pub const POD_CIDR: &str = "10.88.0.0/16";

/// A node's address.
pub fn node_ip(node: usize) -> String {
    format!("10.87.0.{}", 10 + node)
}

/// The addresses of a node's pods.
pub fn pod_cidr(node: usize) -> String {
    format!("10.88.{node}.0/24")
}

/// Makes the cluster's network: loopback, one bridge that holds every node's address, forwarding.
///
/// The default route leads nowhere. It is there because an address of a Service must be routable before
/// kube-proxy's rules rewrite it.
pub fn create(nodes: usize) -> Result<File> {
    let network = namespace::new_network()?;
    let mut script = String::from("link set lo up\nlink add nodes type bridge\n");
    script += &format!("addr add {CONTROL_PLANE_IP}/24 dev nodes\n");
    for node in 0..nodes {
        script += &format!("addr add {}/24 dev nodes\n", node_ip(node));
    }
    script += "link set nodes up\nroute add default dev nodes\n";
    namespace::inside(&network, || {
        ip_batch(&script)?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")
            .context("cannot turn on forwarding inside the cluster")
    })?;
    Ok(network)
}

fn ip_batch(script: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .spawn()
        .context("cannot start `ip`")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes())?;
    }
    let result = child.wait_with_output()?;
    if !result.status.success() {
        bail!("cannot set the cluster's network up: {}", String::from_utf8_lossy(&result.stderr).trim());
    }
    Ok(())
}
