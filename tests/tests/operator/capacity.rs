//! What does not fit is told with a remedy, and heals when there is room.

use anyhow::{Context, Result};
use coterie_api::condition::{PLACED, READY, reason};
use coterie_api::deployment::ModelDeployment;
use coterie_tests::kubelet::inspection;
use coterie_tests::world::{World, eventually};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde_json::{Value, json};

const NAME: &str = "smol";

#[tokio::test]
async fn too_little_memory_is_told_with_a_remedy_and_heals_when_a_node_is_added() -> Result<()> {
    let world = World::new("small").await?;
    world.node("a", "200Mi").await?;
    let _operator = world.operator()?;
    world.apply(&world.deployment(NAME)).await?;
    let pod = world.inspect_pod().await?;
    world.kubelet().bind(&pod, &world.node_name("a")).await?;
    let mut large = inspection();
    large.weight_bytes.none = 4 << 30;
    large.weight_bytes.int8 = 2 << 30;
    world.kubelet().inspected(&pod, &large).await?;
    let told = world.condition(NAME, PLACED, "False", Some(reason::NODE_TOO_SMALL)).await?;
    assert!(told.message.contains("4.") && told.message.contains("GiB"), "{}", told.message);
    let capacity = world.read(NAME).await?.status.and_then(|it| it.capacity).context("no capacity")?;
    assert!(capacity.needed > 4 << 30, "{capacity:?}");
    assert_eq!(capacity.largest_node, 200 << 20);

    world.node("b", "16Gi").await?;
    let rank = world.new_rank(&[]).await?;
    eventually("status of the larger node", || {
        Box::pin(async {
            let capacity = world.read(NAME).await?.status.and_then(|it| it.capacity);
            Ok(capacity.filter(|it| it.largest_node == 16 << 30))
        })
    })
    .await?;
    world.kubelet().bind(&rank, &world.node_name("b")).await?;
    world.kubelet().ready(&rank).await?;
    world.condition(NAME, READY, "True", None).await?;
    Ok(())
}

#[tokio::test]
async fn a_memory_limit_that_is_too_small_makes_no_pod_and_heals_when_it_is_raised() -> Result<()> {
    let world = World::with_node("limit").await?;
    let _operator = world.operator()?;
    let mut deployment = world.deployment(NAME);
    deployment["spec"]["template"]["resources"] = json!({"limits": {"memory": "100Mi"}});
    world.apply(&deployment).await?;
    let pod = world.inspect_pod().await?;
    world.kubelet().inspected(&pod, &inspection()).await?;
    let told = world.condition(NAME, PLACED, "False", Some(reason::MEMORY_LIMIT_TOO_SMALL)).await?;
    assert!(told.message.contains("100.0 MiB") && told.message.contains("153.0 MiB"), "{}", told.message);
    assert!(world.ranks().await?.is_empty(), "no pod is made that can never run");
    let limit = json!({"spec": {"template": {"resources": {"limits": {"memory": "200Mi"}}}}});
    world.change(NAME, limit).await?;
    world.new_rank(&[]).await?;
    Ok(())
}

#[tokio::test]
async fn room_that_a_foreign_pod_takes_is_found_when_that_pod_goes() -> Result<()> {
    let world = World::new("room").await?;
    let node = world.node("a", "1Gi").await?;
    let foreign: Value = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "foreign"},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "a", "image": "a", "resources": {"requests": {"memory": "1000Mi"}}}]
        }
    });
    let pods: Api<Pod> = world.api();
    pods.create(&kube::api::PostParams::default(), &serde_json::from_value(foreign)?).await?;
    let _operator = world.operator()?;
    world.apply(&world.deployment(NAME)).await?;
    let pod = world.inspect_pod().await?;
    world.kubelet().inspected(&pod, &inspection()).await?;
    let rank = world.new_rank(&[]).await?;
    world.kubelet().unschedulable(&rank, "0/1 nodes are available: 1 Insufficient memory").await?;
    let told = world.condition(NAME, PLACED, "False", Some(reason::NO_ROOM)).await?;
    assert!(!told.message.is_empty());
    let free = |deployment: &ModelDeployment| {
        deployment.status.as_ref().and_then(|it| it.capacity.as_ref()).and_then(|it| it.free)
    };
    assert_eq!(free(&world.read(NAME).await?), Some(24 << 20));
    // The scheduler has not spoken again, but there is room now.
    world.destroy("foreign").await?;
    world.condition(NAME, PLACED, "False", Some(reason::UNSCHEDULABLE)).await?;
    assert_eq!(free(&world.read(NAME).await?), None, "what is free is only told while it is too little");
    Ok(())
}
