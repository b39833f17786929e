//! For every write of a whole life (made, rolled out, scaled up and down) the operator is killed right after it and
//! another one takes over; or its answer is lost and the same one goes on. The end is the same, and nothing is there
//! twice or left over.

use anyhow::{Context, Result, ensure};
use coterie_api::deployment::ModelDeployment;
use coterie_api::name::{LABEL_DEPLOYMENT, LABEL_REVISION};
use coterie_tests::kubelet::inspects;
use coterie_tests::wire::{Trouble, Wire};
use coterie_tests::world::{World, condition, eventually};
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::api::ListParams;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Mutex;

const NAME: &str = "smol";
/// Lives at the same time: they mostly wait.
const TOGETHER: usize = 10;
/// The tests of this file one after the other: more lives than that would wait for the machine.
static LIVES: Mutex<()> = Mutex::const_new(());
/// Replicas in service at one moment of the life: two and a surged one.
const MOST_REPLICAS: usize = 3;

#[tokio::test]
async fn a_killed_operator_resumes_wherever_it_was() -> Result<()> {
    same_end_with(Trouble::CutAfter, 1).await
}

#[tokio::test]
async fn a_lost_answer_does_no_harm_wherever_it_was() -> Result<()> {
    same_end_with(Trouble::AnswerLost, 1).await
}

#[tokio::test]
async fn a_killed_operator_resumes_replicas_of_two_ranks() -> Result<()> {
    same_end_with(Trouble::CutAfter, 2).await
}

#[tokio::test]
async fn a_lost_answer_does_no_harm_to_replicas_of_two_ranks() -> Result<()> {
    same_end_with(Trouble::AnswerLost, 2).await
}

async fn same_end_with(trouble: fn(usize) -> Trouble, ranks: usize) -> Result<()> {
    let _lives = LIVES.lock().await;
    let most = MOST_REPLICAS * ranks;
    let undisturbed = live(None, ranks).await.context("the undisturbed life")?;
    ensure!(undisturbed.writes >= 12, "a whole life has more than {} writes", undisturbed.writes);
    let lives = stream::iter((1..=undisturbed.writes).map(trouble)).map(|trouble| async move {
        let life = live(Some(trouble), ranks).await.with_context(|| format!("{trouble:?}"))?;
        anyhow::Ok((trouble, life))
    });
    let lives: Vec<(Trouble, Life)> = lives.buffer_unordered(TOGETHER).try_collect().await?;
    for (trouble, life) in lives {
        assert_eq!(life.end, undisturbed.end, "{trouble:?}");
        assert!(life.most_ranks <= most, "{trouble:?}: {} ranks at once", life.most_ranks);
        assert!(
            life.ranks_made <= undisturbed.ranks_made,
            "{trouble:?}: {} ranks were made",
            life.ranks_made
        );
    }
    assert!(undisturbed.most_ranks <= most, "{} ranks at once", undisturbed.most_ranks);
    Ok(())
}

/// What is left of one life.
struct Life {
    /// Writes of the first operator.
    writes: usize,
    most_ranks: usize,
    ranks_made: usize,
    end: Value,
}

async fn live(trouble: Option<Trouble>, ranks: usize) -> Result<Life> {
    let world = Arc::new(World::with_node("crash").await?);
    let counted = Arc::new(Counted::default());
    let wire = trouble.map_or_else(Wire::default, Wire::with);
    let watching = tokio::spawn(count(world.clone(), counted.clone()));
    let playing = tokio::spawn(world.kubelet().play(world.node_name("a")));
    let operating = tokio::spawn(operate(world.clone(), wire.clone()));
    let lived = story(&world, ranks).await;
    let end = match lived {
        Ok(()) => end(&world).await,
        Err(error) => Err(error.context(format!("writes: {:#?}", wire.writes()))),
    };
    // Ends the operator with its task.
    operating.abort();
    let _ = operating.await;
    playing.abort();
    watching.abort();
    let writes = wire.calls().iter().filter(|call| call.is_write()).count();
    Ok(Life {
        writes,
        most_ranks: counted.most.load(Ordering::SeqCst),
        ranks_made: counted.made.load(Ordering::SeqCst),
        end: end?,
    })
}

/// What the user does, each step when the one before is in effect.
async fn story(world: &World, ranks: usize) -> Result<()> {
    let mut deployment = world.deployment(NAME);
    deployment["spec"]["ranks"] = json!(ranks);
    world.apply(&deployment).await?;
    settled(world, ranks).await?;
    world.change(NAME, json!({"spec": {"model": {"quantization": "Int8"}}})).await?;
    settled(world, ranks).await?;
    if ranks > 1 {
        // Replicas come and go as those of one rank do.
        return Ok(());
    }
    world.change(NAME, json!({"spec": {"replicas": 2}})).await?;
    settled(world, 2 * ranks).await?;
    world.change(NAME, json!({"spec": {"replicas": 1}})).await?;
    settled(world, ranks).await
}

/// Runs an operator behind `wire`; when that is cut, kills it and runs another.
async fn operate(world: Arc<World>, wire: Wire) -> Result<()> {
    let first = world.operator_on(wire.clone(), world.options())?;
    wire.was_cut().await;
    first.kill().await;
    let _second = world.operator()?;
    std::future::pending().await
}

/// Waits until status says that the present spec is in effect with so many ranks, and no other pod is left.
async fn settled(world: &World, ranks: usize) -> Result<()> {
    eventually(&format!("{ranks} ranks as asked"), || {
        Box::pin(async move {
            let deployment = world.read(NAME).await?;
            let generation = deployment.metadata.generation;
            let ready = condition(&deployment, "Ready")
                .is_some_and(|ready| ready.status == "True" && ready.observed_generation == generation);
            Ok((ready && world.pods().await?.len() == ranks).then_some(()))
        })
    })
    .await
}

/// The state at the end, without what differs from world to world.
async fn end(world: &World) -> Result<Value> {
    let deployment: ModelDeployment = world.read(NAME).await?;
    let status = deployment.status.clone().context("no status")?;
    let conditions: BTreeMap<String, String> = status
        .conditions
        .iter()
        .map(|it| (it.type_.clone(), format!("{} {}", it.status, it.reason)))
        .collect();
    let pods = world.pods().await?;
    let services = world.api::<Service>().list(&ListParams::default()).await?;
    let secrets = world.api::<Secret>().list(&ListParams::default()).await?;
    // The map of a replica goes when its last pod is gone.
    let several = status.ranks.is_some_and(|ranks| ranks > 1);
    let wanted = if several { usize::try_from(status.replicas)? } else { 0 };
    let maps = eventually(&format!("{wanted} expert maps"), || {
        Box::pin(async move {
            let own = ListParams::default().labels(LABEL_DEPLOYMENT);
            let maps = world.api::<ConfigMap>().list(&own).await?.items;
            Ok((maps.len() == wanted).then_some(maps))
        })
    })
    .await?;
    let revision = |pod: &Pod| pod.labels().get(LABEL_REVISION).cloned().unwrap_or_default();
    Ok(json!({
        "conditions": conditions,
        "replicas": [status.replicas, status.ready_replicas],
        "quantization": status.quantization,
        "revision is current": pods.iter().all(|pod| Some(revision(pod)) == status.rollout.as_ref().and_then(|it| it.revision.clone())),
        "pods": pods.len(),
        "inspect pods": pods.iter().filter(|pod| inspects(pod)).count(),
        "expert maps": maps.len(),
        "secrets": secrets.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        "services": services.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
    }))
}

#[derive(Default)]
struct Counted {
    most: AtomicUsize,
    made: AtomicUsize,
}

/// Counts ranks as the API server tells of them, one change after the other.
async fn count(world: Arc<World>, counted: Arc<Counted>) {
    let mut live: BTreeMap<String, bool> = BTreeMap::new();
    let mut events = pin!(watcher(world.api::<Pod>(), Config::default()));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) if !inspects(&pod) => {
                live.insert(pod.uid().unwrap_or_default(), pod.meta().deletion_timestamp.is_none());
            }
            Ok(Event::Delete(pod)) if !inspects(&pod) => {
                live.insert(pod.uid().unwrap_or_default(), false);
            }
            _ => {}
        }
        counted.most.fetch_max(live.values().filter(|live| **live).count(), Ordering::SeqCst);
        counted.made.store(live.len(), Ordering::SeqCst);
    }
}
