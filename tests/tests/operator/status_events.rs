//! What a person is told: Events on changes, times that mean something, writes to status alone.

use anyhow::{Context, Result};
use coterie_api::condition::{READY, VALID, reason};
use coterie_api::deployment::ModelDeployment;
use coterie_tests::kubelet::unknown_architecture;
use coterie_tests::world::{World, condition, eventually};
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

const NAME: &str = "smol";

async fn events(world: &World) -> Result<Vec<Event>> {
    Ok(world.api::<Event>().list(&ListParams::default()).await?.items)
}

#[tokio::test]
async fn each_change_of_a_condition_is_one_event() -> Result<()> {
    let world = World::with_node("told").await?;
    let operator = world.operator()?;
    world.serve(&world.deployment(NAME)).await?;
    let ready = eventually("an Event that it is ready", || {
        Box::pin(async {
            Ok(events(&world).await?.into_iter().find(|it| it.reason.as_deref() == Some(reason::AS_ASKED)))
        })
    })
    .await?;
    assert_eq!(ready.type_.as_deref(), Some("Normal"));
    let about = ready.regarding.context("about nothing")?;
    assert_eq!((about.kind.as_deref(), about.name.as_deref()), (Some("ModelDeployment"), Some(NAME)));
    assert_eq!(about.uid, world.read(NAME).await?.metadata.uid);
    assert!(ready.note.is_some_and(|note| !note.is_empty()));

    let all = events(&world).await?;
    let kinds: Vec<_> =
        all.iter().map(|it| (it.action.clone(), it.reason.clone(), it.type_.clone())).collect();
    let different: BTreeSet<_> = kinds.iter().collect();
    assert_eq!(kinds.len(), different.len(), "an Event came twice: {kinds:#?}");
    let writes = operator.wire.writes();
    let sent = writes.iter().filter(|call| call.contains("/events"));
    assert!(sent.into_iter().all(|call| call.contains("/apis/events.k8s.io/v1/")), "{writes:#?}");
    Ok(())
}

#[tokio::test]
async fn trouble_is_a_warning_with_the_cause() -> Result<()> {
    let world = World::with_node("told").await?;
    let _operator = world.operator()?;
    world.apply(&world.deployment(NAME)).await?;
    let pod = world.inspect_pod().await?;
    world.kubelet().rejected(&pod, &unknown_architecture()).await?;
    let told = eventually("a warning", || {
        Box::pin(async {
            let events = events(&world).await?;
            Ok(events.into_iter().find(|it| it.reason.as_deref() == Some(reason::MODEL_REJECTED)))
        })
    })
    .await?;
    assert_eq!(told.type_.as_deref(), Some("Warning"));
    assert!(told.note.as_ref().is_some_and(|note| note.contains("GPT2LMHeadModel")), "{told:?}");
    Ok(())
}

#[tokio::test]
async fn a_transition_time_changes_only_with_its_status() -> Result<()> {
    let world = World::with_node("times").await?;
    let _operator = world.operator()?;
    world.serve(&world.deployment(NAME)).await?;
    let before = world.read(NAME).await?;
    let time = |deployment: &ModelDeployment, kind: &str| {
        condition(deployment, kind).map(|it| it.last_transition_time)
    };
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.change(NAME, json!({"spec": {"replicas": 2}})).await?;
    let generation = world.read(NAME).await?.metadata.generation;
    let after = eventually("a status of the new generation", || {
        Box::pin(async {
            let now = world.read(NAME).await?;
            let seen = now.status.as_ref().is_some_and(|it| it.observed_generation == generation);
            Ok(seen.then_some(now))
        })
    })
    .await?;
    assert_eq!(time(&after, VALID), time(&before, VALID));
    assert_eq!(condition(&after, READY).map(|it| it.status), Some("False".to_owned()));
    assert!(time(&after, READY) > time(&before, READY));
    Ok(())
}

#[tokio::test]
async fn the_operator_writes_no_spec() -> Result<()> {
    let world = World::with_node("spec").await?;
    let operator = world.operator()?;
    world.serve(&world.deployment(NAME)).await?;
    let writes = operator.wire.writes();
    let touched: Vec<_> = writes.iter().filter(|call| call.contains("/modeldeployments/")).collect();
    assert!(!touched.is_empty());
    assert!(
        touched.iter().all(|call| call.ends_with(&format!("/modeldeployments/{NAME}/status"))),
        "{touched:?}"
    );
    assert_eq!(world.read(NAME).await?.metadata.generation, Some(1));
    Ok(())
}
