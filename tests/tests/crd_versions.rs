//! An operator beside a CRD of another version: it says so, does what it can, and heals. A binary of its own, because
//! the CRD is the whole API server's.

use anyhow::{Context, Result};
use coterie_api::condition::{VALID, reason};
use coterie_api::deployment::crd;
use coterie_operator::Options;
use coterie_tests::api_server::install_crd;
use coterie_tests::port::free_port;
use coterie_tests::wire::Wire;
use coterie_tests::world::{Operator, World, eventually, get};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// Held by the one test that changes the CRD.
static CRD_IN_USE: Mutex<()> = Mutex::const_new(());

const NAME: &str = "smol";

fn status_changed(change: impl Fn(&mut Value)) -> Result<CustomResourceDefinition> {
    let mut crd = json!(crd());
    let fields = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    change(&mut fields["status"]["properties"]);
    Ok(serde_json::from_value(crd)?)
}

fn start(world: &World) -> Result<(Operator, u16)> {
    let http_port = free_port()?;
    let operator = world.operator_on(Wire::default(), Options { http_port, ..world.options() })?;
    Ok((operator, http_port))
}

async fn is_told(port: u16, path: &str, words: &[&str]) -> Result<()> {
    eventually(&format!("{words:?} at {path}"), || {
        Box::pin(async move {
            // The operator has to open its port first.
            let answer = get(port, path).await.unwrap_or_default();
            Ok(words.iter().all(|words| answer.contains(words)).then_some(()))
        })
    })
    .await
}

async fn warning(world: &World) -> Result<Event> {
    eventually("an Event about the status", || {
        Box::pin(async {
            let events = world.api::<Event>().list(&ListParams::default()).await?.items;
            Ok(events.into_iter().find(|it| it.reason.as_deref() == Some(reason::STATUS_REFUSED)))
        })
    })
    .await
}

async fn heals(world: &World, port: u16) -> Result<()> {
    install_crd(&world.client, &crd()).await?;
    is_told(port, "/ready", &["200 OK"]).await?;
    is_told(port, "/metrics", &["coterie_operator_crd_matches 1"]).await?;
    world.condition(NAME, VALID, "Unknown", Some(reason::INSPECTING)).await?;
    eventually("a whole status", || {
        Box::pin(async {
            let status = world.read(NAME).await?.status;
            Ok(status.filter(|it| it.endpoint.is_some() && it.ready_of_desired.is_some()).map(drop))
        })
    })
    .await
}

#[tokio::test]
async fn an_older_crd_that_lacks_a_field_is_told_everywhere_and_heals() -> Result<()> {
    let _crd = CRD_IN_USE.lock().await;
    let world = World::with_node("older").await?;
    let older = status_changed(|status| {
        status.as_object_mut().map(|fields| fields.remove("endpoint"));
    })?;
    install_crd(&world.client, &older).await?;
    let (_operator, port) = start(&world)?;
    is_told(port, "/ready", &["503 ", "differs in .status.endpoint", "kubectl apply --server-side -f crds/"])
        .await?;
    is_told(port, "/metrics", &["coterie_operator_crd_matches 0"]).await?;
    is_told(port, "/health", &["200 OK"]).await?;
    world.apply(&world.deployment(NAME)).await?;
    world.inspect_pod().await.context("it does what it can")?;
    let told = warning(&world).await?;
    assert_eq!(told.type_.as_deref(), Some("Warning"));
    assert!(
        told.note.is_some_and(|note| note.contains(".status.endpoint") && note.contains("kubectl apply"))
    );
    heals(&world, port).await
}

#[tokio::test]
async fn a_status_that_is_refused_is_told_at_the_object_and_heals() -> Result<()> {
    let _crd = CRD_IN_USE.lock().await;
    let world = World::with_node("refused").await?;
    let other = status_changed(|status| status["readyOfDesired"]["maxLength"] = json!(1))?;
    install_crd(&world.client, &other).await?;
    let (_operator, port) = start(&world)?;
    is_told(port, "/ready", &["503 ", "differs in .status.readyOfDesired.maxLength"]).await?;
    world.apply(&world.deployment(NAME)).await?;
    world.inspect_pod().await.context("it does what it can")?;
    let told = warning(&world).await?;
    assert_eq!(told.type_.as_deref(), Some("Warning"));
    assert_eq!(told.regarding.and_then(|it| it.name).as_deref(), Some(NAME));
    let note = told.note.context("no words")?;
    assert!(note.contains("readyOfDesired") && note.contains("kubectl apply"), "{note}");
    heals(&world, port).await
}

#[tokio::test]
async fn a_crd_that_is_changed_under_a_running_operator_is_noticed_by_its_next_status() -> Result<()> {
    let _crd = CRD_IN_USE.lock().await;
    let world = World::with_node("under").await?;
    install_crd(&world.client, &crd()).await?;
    let (_operator, port) = start(&world)?;
    is_told(port, "/ready", &["200 OK"]).await?;
    let other = status_changed(|status| status["readyOfDesired"]["maxLength"] = json!(1))?;
    install_crd(&world.client, &other).await?;
    world.apply(&world.deployment(NAME)).await?;
    is_told(port, "/ready", &["503 ", "differs in .status.readyOfDesired.maxLength"]).await?;
    heals(&world, port).await
}
