//! Getting the images to a cluster that is not our own.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Names;
use crate::image::Image;
use crate::kube::Kube;
use crate::product::Product;
use crate::step::step;
use crate::{apt, cluster, cmd};

/// Brings the images to where the cluster's nodes can take them from:
/// a registry if one is named, kind's nodes, an embedded cluster's nodes; else they must be there already.
pub fn deliver(kube: &Kube, context: &str, product: &Product, registry: Option<&str>) -> Result<Names> {
    kube.kubectl(&["get", "--raw", "/readyz"])
        .with_context(|| format!("context {context} does not answer"))?;
    if let Some(registry) = registry {
        return push(product, registry);
    }
    if let Some(name) = context.strip_prefix("kind-") {
        for image in product.images() {
            step(format!("kind load {}", image.name), || {
                cmd::run(Command::new("kind").args(["load", "image-archive", "--name", name]).arg(&image.tar))
            })?;
        }
    } else if let Some(cluster) =
        context.strip_prefix("coterie-").map(cluster::running).transpose()?.flatten()
    {
        cluster.import(&product.images())?;
    } else {
        eprintln!("  No --registry given: the nodes of {context} must have these images already:");
        for image in product.images() {
            eprintln!("    {}  (OCI archive {})", image.name, image.tar.display());
        }
    }
    Ok(Names::local(product))
}

fn push(product: &Product, registry: &str) -> Result<Names> {
    apt::ensure(&["skopeo"])?;
    let push = |image: &Image| -> Result<String> {
        let name = image.name.split_once('/').map_or(image.name.as_str(), |(_, rest)| rest);
        let target = format!("{}/{name}", registry.trim_end_matches('/'));
        if target.contains(char::is_whitespace) {
            bail!("--registry {registry:?} is no registry; write it like registry.example.com/team");
        }
        step(format!("skopeo copy {target}"), || {
            let source = format!("oci-archive:{}", image.tar.display());
            cmd::run(Command::new("skopeo").args([
                "copy",
                "--insecure-policy",
                &source,
                &format!("docker://{target}"),
            ]))
        })?;
        Ok(target)
    };
    Ok(Names {
        operator: push(&product.operator)?,
        runtime: push(&product.runtime)?,
        model: push(&product.model)?,
    })
}
