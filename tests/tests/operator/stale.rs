//! A view that lags behind, and names that are taken: no pod is made twice, and nobody else's is touched.

use anyhow::Result;
use coterie_api::condition::{VALID, reason};
use coterie_tests::kubelet::inspection;
use coterie_tests::wire::{Trouble, Wire};
use coterie_tests::world::{World, eventually};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Api;
use serde_json::json;
use std::time::Duration;

const NAME: &str = "smol";

#[tokio::test]
async fn a_blind_operator_waits_until_it_sees_its_own_writes() -> Result<()> {
    let world = World::with_node("blind").await?;
    let wire = Wire::default();
    // Pods are listed, and then no change of them is seen.
    wire.fail(Some("/api/v1/pods?&watch=true"));
    let operator = world.operator_on(wire, world.options())?;
    world.apply(&world.deployment(NAME)).await?;
    let pod = world.inspect_pod().await?;
    world.kubelet().inspected(&pod, &inspection()).await?;
    for replicas in 2..5 {
        world.change(NAME, json!({"spec": {"replicas": replicas}})).await?;
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    let made = operator.wire.calls().iter().filter(|call| call.makes_pod()).count();
    assert_eq!(made, 1, "nothing is planned on a view that lacks the last write");
    operator.wire.fail(None);
    eventually("all ranks", || Box::pin(async { Ok((world.ranks().await?.len() == 4).then_some(())) })).await
}

#[tokio::test]
async fn a_pod_whose_creation_was_neither_answered_nor_seen_is_not_made_twice() -> Result<()> {
    let world = World::with_node("unseen").await?;
    // Two Services, then the pod.
    let wire = Wire::with(Trouble::AnswerLost(3));
    wire.fail(Some("/api/v1/pods?&watch=true"));
    let operator = world.operator_on(wire, world.options())?;
    world.apply(&world.deployment(NAME)).await?;
    let pod = world.inspect_pod().await?;
    let looked_up = format!("/pods/{pod}");
    eventually("a look at the pod that is there already", || {
        Box::pin(async {
            let calls = operator.wire.calls();
            Ok(calls
                .iter()
                .any(|call| call.method == Method::GET && call.path.ends_with(&looked_up))
                .then_some(()))
        })
    })
    .await?;
    world.condition(NAME, VALID, "Unknown", Some(reason::INSPECTING)).await?;
    assert_eq!(world.pods().await?.len(), 1);
    operator.wire.fail(None);
    world.kubelet().inspected(&pod, &inspection()).await?;
    world.condition(NAME, VALID, "True", None).await?;
    Ok(())
}
#[tokio::test]
async fn a_name_that_a_foreign_pod_has_is_avoided() -> Result<()> {
    let world = World::with_node("name").await?;
    let foreign = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{NAME}-0")},
        "spec": {"containers": [{"name": "a", "image": "a"}]}
    });
    let pods: Api<Pod> = world.api();
    let foreign = pods.create(&kube::api::PostParams::default(), &serde_json::from_value(foreign)?).await?;
    let _operator = world.operator()?;
    world.apply(&world.deployment(NAME)).await?;
    let pod = world.inspect_pod().await?;
    world.kubelet().inspected(&pod, &inspection()).await?;
    world.new_rank(&[&format!("{NAME}-0")]).await?;
    let still = pods.get(&format!("{NAME}-0")).await?;
    assert_eq!((still.uid(), still.labels().len()), (foreign.uid(), 0));
    Ok(())
}
