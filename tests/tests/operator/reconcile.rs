//! From a ModelDeployment to pods, step by step. The kubelet's part is played by the test.

use anyhow::{Context, Result};
use coterie_api::condition::{PLACED, READY, ROLLED_OUT, SERVING, VALID, WEIGHTS_LOADED, reason};
use coterie_api::deployment::ModelDeployment;
use coterie_api::launch::Quantization;
use coterie_api::name::{
    ANNOTATION_RESTART, CONTAINER_INSPECT, CONTAINER_RANK, LABEL_DEPLOYMENT, LABEL_REVISION,
};
use coterie_tests::kubelet::{inspection, inspects};
use coterie_tests::world::{World, condition, container, eventually};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;
use std::time::{Duration, Instant};

const NAME: &str = "smol";
/// From what makes a pod necessary to the request that makes it.
const GOAL: Duration = Duration::from_secs(1);

#[tokio::test]
async fn apply_makes_an_inspect_pod_within_a_second() -> Result<()> {
    let world = World::with_node("inspect").await?;
    let operator = world.operator()?;
    // The operator's watches are open before the clock starts.
    eventually("the first list", || {
        Box::pin(async {
            Ok(operator.wire.calls().iter().any(|call| call.query.contains("watch=true")).then_some(()))
        })
    })
    .await?;
    let start = Instant::now();
    let deployment = world.apply(&world.deployment(NAME)).await?;
    let took = operator.pod_made_after(0, start).await?;
    assert!(took < GOAL, "the inspect pod was made {took:?} after the apply");

    let name = world.inspect_pod().await?;
    let pod = world.api::<Pod>().get(&name).await?;
    let container = container(&pod)?;
    assert_eq!(container.name, CONTAINER_INSPECT);
    assert_eq!(container.image.as_deref(), Some("coterie:test"));
    assert_eq!(container.image_pull_policy.as_deref(), Some("Never"));
    assert_eq!(container.args.as_ref().and_then(|args| args.first()).map(String::as_str), Some("inspect"));
    let spec = pod.spec.as_ref().context("no spec")?;
    let volume = spec.volumes.as_ref().and_then(|volumes| volumes.first()).context("no volume")?;
    assert_eq!(volume.image.as_ref().and_then(|image| image.reference.as_deref()), Some("models/tiny:1"));
    assert_eq!(spec.node_selector.as_ref().and_then(|it| it.get("world")), Some(&world.namespace));
    let owner = pod.owner_references().first().context("no owner")?;
    assert_eq!((owner.controller, Some(&owner.uid)), (Some(true), deployment.metadata.uid.as_ref()));
    assert_eq!(pod.labels().get(LABEL_DEPLOYMENT).map(String::as_str), Some(NAME));
    world.condition(NAME, VALID, "Unknown", Some(reason::INSPECTING)).await?;
    Ok(())
}

#[tokio::test]
async fn inspected_weights_become_a_rank_within_a_second_and_a_ready_deployment() -> Result<()> {
    let world = World::with_node("ready").await?;
    let operator = world.operator()?;
    world.apply(&world.deployment(NAME)).await?;
    let inspect = world.inspect_pod().await?;
    world.kubelet().bind(&inspect, &world.node_name("a")).await?;
    let start = Instant::now();
    world.kubelet().inspected(&inspect, &inspection()).await?;
    let took = operator.pod_made_after(1, start).await?;
    assert!(took < GOAL, "the rank was made {took:?} after the inspection");

    let rank = world.new_rank(&[]).await?;
    let pod = world.api::<Pod>().get(&rank).await?;
    let args = container(&pod)?.args.clone().unwrap_or_default().join(" ");
    assert_eq!(container(&pod)?.name, CONTAINER_RANK);
    assert!(args.starts_with("serve --model /model --served-name smol"), "{args}");
    assert!(args.contains("--quantization none") && args.contains("--device cpu"), "{args}");
    world.condition(NAME, PLACED, "False", Some(reason::SCHEDULING)).await?;
    world.kubelet().bind(&rank, &world.node_name("a")).await?;
    world.kubelet().starting(&rank).await?;
    world.condition(NAME, PLACED, "True", None).await?;
    world.condition(NAME, WEIGHTS_LOADED, "False", Some(reason::LOADING)).await?;
    world.condition(NAME, SERVING, "False", Some(reason::NO_RANK_READY)).await?;
    world.kubelet().ready(&rank).await?;
    world.condition(NAME, READY, "True", Some(reason::AS_ASKED)).await?;

    let deployment = world.read(NAME).await?;
    for kind in [VALID, PLACED, WEIGHTS_LOADED, SERVING, ROLLED_OUT] {
        let found = condition(&deployment, kind).context(kind)?;
        assert_eq!(found.status, "True", "{found:?}");
        assert_eq!(found.observed_generation, deployment.metadata.generation);
    }
    let status = deployment.status.clone().context("no status")?;
    assert_eq!(status.observed_generation, deployment.metadata.generation);
    assert_eq!((status.replicas, status.ready_replicas), (1, 1));
    assert_eq!(status.ready_of_desired.as_deref(), Some("1/1"));
    assert_eq!(status.quantization, Some(Quantization::None));
    let weights = status.weights.context("no weights")?;
    assert_eq!(
        (weights.inspection.digest, weights.inspection.architecture),
        (inspection().digest, inspection().architecture)
    );

    // The selector of the scale subresource finds exactly the rank; an autoscaler asks by it.
    let scale = world.api::<ModelDeployment>().get_scale(NAME).await?;
    let selector = scale.status.and_then(|status| status.selector).context("no selector")?;
    let selected = world.api::<Pod>().list(&kube::api::ListParams::default().labels(&selector)).await?;
    assert_eq!(selected.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), [rank]);
    assert!(world.pods().await?.iter().all(|pod| !inspects(pod) || pod.meta().deletion_timestamp.is_some()));
    Ok(())
}

#[tokio::test]
async fn services_select_the_ranks_and_come_back_when_deleted() -> Result<()> {
    let world = World::with_node("services").await?;
    let _operator = world.operator()?;
    let rank = world.serve(&world.deployment(NAME)).await?;
    let services = world.api::<Service>();
    let service = services.get(NAME).await?;
    let pod = world.api::<Pod>().get(&rank).await?;
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).context("no selector")?;
    assert!(selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value)), "{selector:?}");
    services.delete(NAME, &DeleteParams::default()).await?;
    let again = eventually("the Service again", || {
        Box::pin(async { Ok(services.get_opt(NAME).await?.filter(|it| it.uid() != service.uid())) })
    });
    let again = again.await?;
    assert_eq!(again.spec.and_then(|spec| spec.selector), Some(selector));
    Ok(())
}

#[tokio::test]
async fn a_change_of_quantization_surges_waits_and_drains() -> Result<()> {
    let world = World::with_node("rollout").await?;
    let operator = world.operator()?;
    let old = world.serve(&world.deployment(NAME)).await?;
    let revision = |pod: &Pod| pod.labels().get(LABEL_REVISION).cloned();
    let before = revision(&world.api::<Pod>().get(&old).await?);

    world.change(NAME, json!({"spec": {"model": {"quantization": "Int8"}}})).await?;
    let new = world.new_rank(&[&old]).await?;
    assert_eq!(world.ranks().await?.len(), 2, "the new rank comes beside the old one");
    world.condition(NAME, ROLLED_OUT, "False", Some(reason::PROGRESSING)).await?;
    world.kubelet().bind(&new, &world.node_name("a")).await?;
    world.kubelet().starting(&new).await?;
    // A reconcile has seen it running, and the old rank is still in service.
    let seen = operator.wire.writes().len();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let deleted =
        |calls: &[String]| calls.iter().any(|call| call.starts_with("DELETE") && call.ends_with(&old));
    assert!(!deleted(&operator.wire.writes()), "{:?}", &operator.wire.writes()[seen..]);
    world.condition(NAME, SERVING, "True", None).await?;

    world.kubelet().ready(&new).await?;
    eventually("the drain of the old rank", || {
        Box::pin(async {
            let pod = world.api::<Pod>().get(&old).await?;
            Ok(pod.meta().deletion_timestamp.is_some().then_some(()))
        })
    })
    .await?;
    let draining = world.api::<Pod>().get(&old).await?;
    assert!(draining.metadata.deletion_grace_period_seconds >= Some(5), "drainSeconds is waited for");
    world.kubelet().gone(&old).await?;
    world.condition(NAME, READY, "True", None).await?;
    let ranks = world.ranks_are(&[&new]).await?;
    let after = ranks.first().and_then(revision);
    assert!(after.is_some() && after != before, "{before:?} {after:?}");
    assert_eq!(world.read(NAME).await?.status.and_then(|it| it.quantization), Some(Quantization::Int8));
    Ok(())
}

#[tokio::test]
async fn scale_makes_and_removes_ranks() -> Result<()> {
    let world = World::with_node("scale").await?;
    let _operator = world.operator()?;
    let first = world.serve(&world.deployment(NAME)).await?;
    let scale_to = |replicas: i32| {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let api = world.api::<ModelDeployment>();
        async move { api.patch_scale(NAME, &PatchParams::default(), &patch).await }
    };
    scale_to(2).await?;
    let second = world.new_rank(&[&first]).await?;
    world.kubelet().bind(&second, &world.node_name("a")).await?;
    world.kubelet().ready(&second).await?;
    world.condition(NAME, READY, "True", None).await?;
    eventually("two ready replicas", || {
        Box::pin(async {
            let status = world.read(NAME).await?.status;
            Ok(status.filter(|it| it.ready_of_desired.as_deref() == Some("2/2")))
        })
    })
    .await?;
    scale_to(1).await?;
    eventually("one rank is asked to end", || {
        Box::pin(async { Ok((world.ranks().await?.len() == 1).then_some(())) })
    })
    .await?;
    for pod in world.pods().await?.iter().filter(|pod| pod.meta().deletion_timestamp.is_some()) {
        world.kubelet().gone(&pod.name_any()).await?;
    }
    world.condition(NAME, READY, "True", None).await?;
    scale_to(0).await?;
    world.condition(NAME, SERVING, "False", Some(reason::SCALED_TO_ZERO)).await?;
    Ok(())
}

#[tokio::test]
async fn a_restart_annotation_replaces_the_rank() -> Result<()> {
    let world = World::with_node("restart").await?;
    let _operator = world.operator()?;
    let old = world.serve(&world.deployment(NAME)).await?;
    world.change(NAME, json!({"metadata": {"annotations": {ANNOTATION_RESTART: "1"}}})).await?;
    let pod = eventually("another inspection", || {
        Box::pin(async {
            Ok(world
                .pods()
                .await?
                .iter()
                .find(|pod| inspects(pod) && pod.meta().deletion_timestamp.is_none())
                .map(ResourceExt::name_any))
        })
    })
    .await?;
    world.kubelet().bind(&pod, &world.node_name("a")).await?;
    world.kubelet().inspected(&pod, &inspection()).await?;
    world.new_rank(&[&old]).await?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_made_for_a_deployment_that_is_being_deleted() -> Result<()> {
    let world = World::with_node("deletion").await?;
    let operator = world.operator()?;
    let rank = world.serve(&world.deployment(NAME)).await?;
    let params = DeleteParams::foreground();
    world.api::<ModelDeployment>().delete(NAME, &params).await?;
    eventually("the deletion timestamp", || {
        Box::pin(async { Ok(world.read(NAME).await?.metadata.deletion_timestamp) })
    })
    .await?;
    // Events of the last step may still be on their way.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let writes = operator.wire.writes().len();
    // The garbage collector takes the pods first; none may come back.
    world.destroy(&rank).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(&operator.wire.writes()[writes..], &[] as &[String]);
    assert!(world.ranks().await?.is_empty());
    Ok(())
}
