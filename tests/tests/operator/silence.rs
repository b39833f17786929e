//! What must not happen: a write to the API server while nothing changes.

use anyhow::Result;
use coterie_api::deployment::ModelDeployment;
use coterie_tests::wire::Wire;
use coterie_tests::world::World;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use std::time::Duration;

const NAME: &str = "smol";

#[tokio::test]
async fn a_steady_state_is_silent_over_resyncs_heartbeats_and_foreign_pods() -> Result<()> {
    let world = World::with_node("silence").await?;
    let options = coterie_operator::Options { resync_seconds: 1, ..world.options() };
    let operator = world.operator_on(Wire::default(), options)?;
    world.serve(&world.deployment(NAME)).await?;
    // What the last steps left: the end of the inspect pod.
    for pod in world.pods().await?.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
        world.kubelet().gone(pod.metadata.name.as_deref().unwrap_or_default()).await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = operator.wire.calls().len();
    let before = world.read(NAME).await?.metadata.resource_version;

    // Resyncs alone.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let nodes: Api<Node> = Api::all(world.client.clone());
    let heartbeat = json!({"status": {"conditions": [{
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready",
        "lastHeartbeatTime": "2026-02-02T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"
    }]}});
    nodes.patch_status(&world.node_name("a"), &PatchParams::default(), &Patch::Merge(heartbeat)).await?;
    let foreign = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "foreign"},
        "spec": {
            "nodeName": world.node_name("a"),
            "containers": [{"name": "a", "image": "a", "resources": {"requests": {"memory": "1Gi"}}}]
        }
    });
    let pods: Api<Pod> = world.api();
    pods.create(&PostParams::default(), &serde_json::from_value(foreign)?).await?;
    world.kubelet().failed("foreign", "Evicted", "no room").await?;
    world.destroy("foreign").await?;
    tokio::time::sleep(Duration::from_secs(3)).await;

    let made: Vec<_> = operator.wire.calls()[calls..].to_vec();
    assert!(made.is_empty(), "a steady state needs no call at all: {made:?}");
    assert_eq!(world.read(NAME).await?.metadata.resource_version, before);
    Ok(())
}

#[tokio::test]
async fn a_deployment_that_cannot_be_served_is_silent_too() -> Result<()> {
    let world = World::with_node("silence").await?;
    let options = coterie_operator::Options { resync_seconds: 1, ..world.options() };
    let operator = world.operator_on(Wire::default(), options)?;
    let mut deployment = world.deployment(NAME);
    deployment["spec"]["model"]["source"] = json!({"persistentVolumeClaim": {"claimName": "missing"}});
    world.apply(&deployment).await?;
    world.condition(NAME, "Valid", "False", None).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let writes = operator.wire.writes();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(operator.wire.writes(), writes);
    Ok(())
}

#[tokio::test]
async fn a_restarted_operator_finds_nothing_to_do() -> Result<()> {
    let world = World::with_node("silence").await?;
    let operator = world.operator()?;
    world.serve(&world.deployment(NAME)).await?;
    operator.stop().await?;
    for pod in world.pods().await?.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
        world.kubelet().gone(pod.metadata.name.as_deref().unwrap_or_default()).await?;
    }
    let before = world.api::<ModelDeployment>().get(NAME).await?.metadata.resource_version;
    let operator = world.operator()?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(operator.wire.calls().iter().any(|call| call.path.ends_with("/modeldeployments")));
    assert_eq!(operator.wire.writes(), [] as [String; 0]);
    assert_eq!(world.read(NAME).await?.metadata.resource_version, before);
    Ok(())
}
