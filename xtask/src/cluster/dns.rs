//! CoreDNS, as a pod of the cluster.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Cluster, wait_until};
use crate::cache;
use crate::go::Binaries;
use crate::image::{self, Image};

/// The image name that `e2e/cluster/coredns.yaml` uses.
const IMAGE: &str = "localhost/coterie-coredns:1";

/// CoreDNS's image, from the built binary.
pub fn image(binaries: &Binaries) -> Result<Image> {
    image::from_binary(IMAGE, &binaries.coredns, "/coredns")
}

/// Applies the manifest.
pub fn apply(cluster: &Cluster) -> Result<()> {
    let manifest = cache::checkout().join("e2e/cluster/coredns.yaml").display().to_string();
    cluster
        .kubectl(&["apply", "--validate=false", "-f", &manifest])
        .context("cannot install CoreDNS")
        .map(drop)
}

/// Waits until CoreDNS answers.
pub fn wait_ready(cluster: &Cluster) -> Result<()> {
    wait_until("CoreDNS to be ready", Duration::from_secs(90), || {
        cluster.check_alive()?;
        let deployment =
            cluster.kubectl(&["get", "-n", "kube-system", "deployment/coredns", "-o", "json"])?;
        let deployment: Value = serde_json::from_str(&deployment)?;
        Ok(deployment["status"]["readyReplicas"].as_u64() >= Some(1))
    })
}
