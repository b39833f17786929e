//! GPUs that a node offers and no process can use: the machine has none. What a rank finds is told, and heals.

use crate::{READY, talking_model};
use anyhow::{Context, Result, ensure};
use coterie_api::name::{GPU_RESOURCE, LABEL_GPU_MEMORY};
use coterie_e2e::namespace::Namespace;
use coterie_e2e::wait::until;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

#[tokio::test]
async fn gpus_that_cannot_be_used_are_a_condition_with_a_remedy() -> Result<()> {
    let namespace = Namespace::create("e2e-gpus").await?;
    let nodes: Api<Node> = Api::all(namespace.client.clone());
    let node = nodes.list(&ListParams::default()).await?.items.pop().context("there is a node")?.name_any();
    offer(&namespace.client, &node, json!("1"), json!("81559")).await?;

    let mut spec = talking_model(1);
    spec["accelerator"] = json!({"device": "Gpu"});
    namespace.apply("chat", spec.clone()).await?;
    let placed = namespace.reason("chat", "Placed", "DeviceUnusable", READY).await?;
    let message = placed["message"].as_str().unwrap_or_default();
    ensure!(message.contains("there is no CUDA driver"), "{message}");
    println!("{message}");
    namespace.reason("chat", "Ready", "DeviceUnusable", READY).await?;
    let ranks = namespace.ranks("chat").await?;
    let spec_of = ranks.first().and_then(|pod| pod.spec.as_ref()).context("one rank was made")?;
    ensure!(spec_of.node_name.as_deref() == Some(&*node), "{:?}", spec_of.node_name);
    let limits = spec_of.containers[0].resources.as_ref().and_then(|resources| resources.limits.as_ref());
    ensure!(limits.is_some_and(|limits| limits[GPU_RESOURCE].0 == "1"), "{limits:?}");

    spec["accelerator"] = json!({"device": "Cpu"});
    namespace.apply("chat", spec).await?;
    namespace.condition("chat", "Ready", "True", READY).await?;
    offer(&namespace.client, &node, Value::Null, Value::Null).await?;
    namespace.delete().await
}

/// Lets a node offer so many GPUs of so many MiB, as a device plugin and a labeller would; none, with null.
async fn offer(client: &Client, node: &str, gpus: Value, mebibytes: Value) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let labels = json!({"metadata": {"labels": {LABEL_GPU_MEMORY: mebibytes}}});
    nodes.patch(node, &PatchParams::default(), &Patch::Merge(labels)).await?;
    let offered = json!({GPU_RESOURCE: gpus});
    let status = json!({"status": {"capacity": offered, "allocatable": offered}});
    nodes.patch_status(node, &PatchParams::default(), &Patch::Merge(status)).await?;
    until("the node to offer its GPUs", READY, || async {
        let node = nodes.get(node).await?;
        let allocatable = node.status.and_then(|status| status.allocatable).unwrap_or_default();
        let found = allocatable.get(GPU_RESOURCE).map(|quantity| quantity.0.clone());
        let as_asked = found.as_deref().unwrap_or("0") == gpus.as_str().unwrap_or("0");
        Ok(if as_asked { Ok(()) } else { Err(format!("{found:?}")) })
    })
    .await
}
