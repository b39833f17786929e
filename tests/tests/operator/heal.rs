//! What goes wrong is told with its cause, and heals by itself when the cause is gone.

use anyhow::{Context, Result};
use coterie_api::condition::{READY, ROLLED_OUT, SERVING, VALID, reason};
use coterie_api::launch::{Termination, TerminationReason};
use coterie_tests::kubelet::{inspection, unknown_architecture};
use coterie_tests::wire::Call;
use coterie_tests::world::{World, container, eventually};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::time::{Duration, Instant};

const NAME: &str = "smol";
/// From what makes a pod necessary to the request that makes it.
const GOAL: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_deleted_pod_is_replaced() -> Result<()> {
    let world = World::with_node("deleted").await?;
    let operator = world.operator()?;
    let rank = world.serve(&world.deployment(NAME)).await?;
    let uid = world.api::<Pod>().get(&rank).await?.uid();
    let made = operator.wire.calls().iter().filter(|call| call.makes_pod()).count();
    let start = Instant::now();
    world.destroy(&rank).await?;
    let took = operator.pod_made_after(made, start).await?;
    assert!(took < GOAL, "the replacement was made {took:?} after the deletion");
    let replacement = world.new_rank(&[]).await?;
    assert_ne!(world.api::<Pod>().get(&replacement).await?.uid(), uid);
    world.condition(NAME, READY, "False", None).await?;
    Ok(())
}

#[tokio::test]
async fn a_failed_pod_is_replaced_at_once_and_the_next_one_after_a_wait() -> Result<()> {
    let world = World::with_node("evicted").await?;
    let _operator = world.operator()?;
    let rank = world.serve(&world.deployment(NAME)).await?;
    let first = world.api::<Pod>().get(&rank).await?.uid();
    world.kubelet().failed(&rank, "Evicted", "The node was low on resource: memory").await?;
    let replacement = eventually("a replacement", || {
        Box::pin(async {
            let ranks = world.ranks().await?;
            let other = ranks.into_iter().find(|pod| {
                pod.uid() != first
                    && pod.status.as_ref().is_some_and(|it| it.phase.as_deref() == Some("Pending"))
            });
            Ok(other.map(|pod| pod.name_any()))
        })
    })
    .await?;
    let failure = eventually("the failure in status", || {
        Box::pin(async { Ok(world.read(NAME).await?.status.and_then(|it| it.last_failure)) })
    });
    let failure = failure.await?;
    assert_eq!(failure.reason, "Evicted");
    assert!(failure.message.contains("low on resource"), "{}", failure.message);

    // creationTimestamp has seconds: a pod of the same second as the failure counts as its contemporary.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.kubelet().failed(&replacement, "Evicted", "The node was low on resource: memory").await?;
    let told = world.condition(NAME, ROLLED_OUT, "False", Some(reason::BACKING_OFF)).await?;
    assert!(!told.message.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_crash_loop_is_told_with_its_cause() -> Result<()> {
    let world = World::with_node("crash").await?;
    let _operator = world.operator()?;
    let rank = world.serve(&world.deployment(NAME)).await?;
    let cause = Termination {
        reason: TerminationReason::Failed,
        message: "the KV cache of 2048 tokens does not fit into the memory that is left".to_owned(),
    };
    world.kubelet().crash_looping(&rank, 3, &cause).await?;
    let told = world.condition(NAME, SERVING, "False", Some(reason::CRASH_LOOP)).await?;
    assert!(told.message.contains("KV cache of 2048 tokens"), "{}", told.message);
    let failure =
        world.read(NAME).await?.status.and_then(|it| it.last_failure).context("no failure in status")?;
    assert!(failure.message.contains("KV cache"), "{failure:?}");
    world.kubelet().ready(&rank).await?;
    world.condition(NAME, READY, "True", None).await?;
    Ok(())
}

#[tokio::test]
async fn a_missing_claim_is_told_and_heals_when_it_is_made() -> Result<()> {
    let world = World::with_node("claim").await?;
    let operator = world.operator()?;
    let mut deployment = world.deployment(NAME);
    deployment["spec"]["model"]["source"] =
        json!({"persistentVolumeClaim": {"claimName": "weights", "path": "tiny"}});
    world.apply(&deployment).await?;
    let told = world.condition(NAME, VALID, "False", Some(reason::CLAIM_NOT_FOUND)).await?;
    assert!(told.message.contains("weights"), "{}", told.message);
    assert!(
        !operator.wire.calls().iter().any(Call::makes_pod),
        "no pod is made for a claim that is not there"
    );
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "weights"},
        "spec": {"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "1Gi"}}}
    });
    let claims: Api<k8s_openapi::api::core::v1::PersistentVolumeClaim> = world.api();
    claims.patch("weights", &PatchParams::apply("tests"), &Patch::Apply(claim)).await?;
    let pod = world.inspect_pod().await?;
    let pod = world.api::<Pod>().get(&pod).await?;
    let args = container(&pod)?.args.clone().unwrap_or_default();
    assert!(args.contains(&"/model/tiny".to_owned()), "{args:?}");
    Ok(())
}

#[tokio::test]
async fn an_unknown_architecture_is_told_and_heals_when_the_source_is_changed() -> Result<()> {
    let world = World::with_node("unknown").await?;
    let operator = world.operator()?;
    world.apply(&world.deployment(NAME)).await?;
    let pod = world.inspect_pod().await?;
    world.kubelet().bind(&pod, &world.node_name("a")).await?;
    world.kubelet().rejected(&pod, &unknown_architecture()).await?;
    let told = world.condition(NAME, VALID, "False", Some(reason::MODEL_REJECTED)).await?;
    assert!(told.message.contains("GPT2LMHeadModel"), "{}", told.message);
    let ready = world.condition(NAME, READY, "False", Some(reason::MODEL_REJECTED)).await?;
    assert_eq!(ready.message, told.message);
    assert_eq!(
        operator.wire.calls().iter().filter(|call| call.makes_pod()).count(),
        1,
        "it is not tried at once"
    );

    world
        .change(NAME, json!({"spec": {"model": {"source": {"image": {"reference": "models/tiny:2"}}}}}))
        .await?;
    let again = eventually("another inspect pod", || {
        Box::pin(async {
            let pods = world.pods().await?;
            Ok(pods.iter().map(ResourceExt::name_any).find(|name| name.contains("inspect") && *name != pod))
        })
    })
    .await?;
    world.kubelet().bind(&again, &world.node_name("a")).await?;
    world.kubelet().inspected(&again, &inspection()).await?;
    world.condition(NAME, VALID, "True", None).await?;
    world.new_rank(&[]).await?;
    Ok(())
}

#[tokio::test]
async fn a_service_of_somebody_else_is_left_alone_until_it_is_gone() -> Result<()> {
    let world = World::with_node("taken").await?;
    let services: Api<Service> = world.api();
    let foreign = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 1}]}
    });
    services.patch(NAME, &PatchParams::apply("somebody"), &Patch::Apply(foreign)).await?;
    let _operator = world.operator()?;
    let deployment = world.deployment(NAME);
    world.apply(&deployment).await?;
    let pod = world.inspect_pod().await?;
    world.kubelet().bind(&pod, &world.node_name("a")).await?;
    world.kubelet().inspected(&pod, &inspection()).await?;
    let rank = world.new_rank(&[]).await?;
    world.kubelet().bind(&rank, &world.node_name("a")).await?;
    world.kubelet().ready(&rank).await?;
    let told = world.condition(NAME, SERVING, "False", Some(reason::SERVICE_NAME_TAKEN)).await?;
    assert!(told.message.contains(NAME), "{}", told.message);
    let selector = services.get(NAME).await?.spec.and_then(|spec| spec.selector).context("no selector")?;
    assert_eq!(selector.get("app").map(String::as_str), Some("theirs"));
    services.delete(NAME, &DeleteParams::default()).await?;
    world.condition(NAME, READY, "True", None).await?;
    Ok(())
}

#[tokio::test]
async fn a_service_that_somebody_changed_is_put_right_once() -> Result<()> {
    let world = World::with_node("edited").await?;
    let operator = world.operator()?;
    world.serve(&world.deployment(NAME)).await?;
    let services: Api<Service> = world.api();
    let essence = |service: Service| {
        let spec = service.spec.unwrap_or_default();
        let ports = spec.ports.into_iter().flatten().map(|it| (it.name, it.port, it.target_port));
        (spec.type_, spec.selector, ports.collect::<Vec<_>>(), service.metadata.labels)
    };
    let wanted = essence(services.get(NAME).await?);
    let name = "http";
    for edit in [
        json!({"spec": {"selector": {"coterie.dev/role": "nobody"}}}),
        json!({"spec": {"selector": {"one": "more"}}}),
        json!({"spec": {"ports": [{"name": name, "port": 80, "targetPort": 9}]}}),
        // Another port under the same name, as kubectl edit leaves it.
        json!({"spec": {"ports": [{"name": name, "port": 8000, "targetPort": name}]}}),
        json!({"spec": {"type": "NodePort"}}),
        json!({"metadata": {"labels": {"app.kubernetes.io/name": null}}}),
    ] {
        let edited = services.patch(NAME, &PatchParams::default(), &Patch::Merge(edit.clone())).await?;
        assert_ne!(essence(edited), wanted, "{edit}");
        eventually(&format!("the Service as it was before {edit}"), || {
            Box::pin(async { Ok((essence(services.get(NAME).await?) == wanted).then_some(())) })
        })
        .await?;
    }
    // What others add is theirs, and no reason to write.
    let writes = operator.wire.writes().len();
    let addition =
        json!({"metadata": {"annotations": {"mesh": "on"}}, "spec": {"sessionAffinity": "ClientIP"}});
    services.patch(NAME, &PatchParams::default(), &Patch::Merge(addition)).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(operator.wire.writes()[writes..], [] as [String; 0]);
    Ok(())
}

#[tokio::test]
async fn an_api_server_that_fails_is_tried_again() -> Result<()> {
    let world = World::with_node("fails").await?;
    let operator = world.operator()?;
    operator.wire.fail(Some("/pods"));
    world.apply(&world.deployment(NAME)).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.pods().await?.is_empty());
    operator.wire.fail(None);
    world.inspect_pod().await?;
    Ok(())
}
