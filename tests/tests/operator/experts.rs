//! Replicas of several ranks: their expert maps, certificates and reports. Ranks answer on loopback, the kubelet's part is
//! played by the test.

use anyhow::{Context, Result, bail};
use coterie_api::condition::{READY, ROLLED_OUT, SERVING, reason};
use coterie_api::deployment::status::{MoveOutcome, ReplicaExpertsStatus};
use coterie_api::expert_map::ExpertMap;
use coterie_api::name::{
    ANNOTATION_CERTIFICATES, ANNOTATION_EXPERTS, ANNOTATION_NEXT_VALID, ANNOTATION_VALID, EXPERT_MAP_FILE,
    EXPERT_TABLE_FILE, PEERS_FILE,
};
use coterie_api::peers::Peers;
use coterie_operator::Options;
use coterie_tests::kubelet::inspection;
use coterie_tests::rank::Rank;
use coterie_tests::wire::Wire;
use coterie_tests::world::{World, container, eventually};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::ResourceExt;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use serde_json::{Value, json};
use std::time::Duration;

const NAME: &str = "smol";
const MAP: &str = "smol-0-experts";
const SECRET: &str = "smol-exchange-tls";

fn of_ranks(world: &World, ranks: u32) -> Value {
    let mut deployment = world.deployment(NAME);
    deployment["spec"]["ranks"] = json!(ranks);
    deployment
}

/// Applies a deployment of two ranks and brings it to Ready.
async fn serve_two(world: &World) -> Result<[Rank; 2]> {
    world.apply(&of_ranks(world, 2)).await?;
    let pod = world.inspect_pod().await?;
    world.kubelet().bind(&pod, &world.node_name("a")).await?;
    world.kubelet().inspected(&pod, &inspection()).await?;
    world.ranks_are(&["smol-0-0", "smol-0-1"]).await?;
    world.kubelet().gone(&pod).await?;
    let ranks = [start(world, 0, 1).await?, start(world, 1, 1).await?];
    world.condition(NAME, READY, "True", None).await?;
    Ok(ranks)
}

/// The pod of a rank gets a node, an address, and is ready.
async fn start(world: &World, rank: u16, version: u64) -> Result<Rank> {
    let pod = format!("smol-0-{rank}");
    let answering = Rank::start(rank, version).await?;
    world.kubelet().bind(&pod, &world.node_name("a")).await?;
    world.kubelet().ready_at(&pod, &answering.address).await?;
    Ok(answering)
}

async fn map(world: &World) -> Result<(ConfigMap, ExpertMap)> {
    let object = world.api::<ConfigMap>().get(MAP).await?;
    let text = object.data.as_ref().and_then(|entries| entries.get(EXPERT_MAP_FILE)).context("no map")?;
    let map = serde_json::from_str(text)?;
    Ok((object, map))
}

async fn map_is(world: &World, version: u64) -> Result<ExpertMap> {
    eventually(&format!("expert map {version}"), || {
        Box::pin(async { Ok(Some(map(world).await?.1).filter(|map| map.version() == version)) })
    })
    .await
}

async fn told(
    world: &World,
    what: impl Fn(&ReplicaExpertsStatus) -> bool + Sync,
) -> Result<ReplicaExpertsStatus> {
    let found = eventually("the experts' status", || {
        Box::pin(async {
            let experts = world.read(NAME).await?.status.and_then(|status| status.experts);
            Ok(experts.and_then(|experts| experts.replicas.into_iter().next()).filter(|told| what(told)))
        })
    });
    match found.await {
        Ok(found) => Ok(found),
        Err(error) => {
            let status = world.read(NAME).await?.status;
            Err(error.context(format!("the status is {}", serde_json::to_string_pretty(&status)?)))
        }
    }
}

async fn uids(world: &World, pods: &[&str]) -> Result<Vec<Option<String>>> {
    let mut uids = Vec::new();
    for pod in pods {
        uids.push(world.api::<Pod>().get(pod).await?.uid());
    }
    Ok(uids)
}

#[tokio::test]
async fn two_ranks_share_a_map_and_certificates_that_are_there_before_them() -> Result<()> {
    let world = World::with_node("ranks").await?;
    let operator = world.operator()?;
    let _ranks = serve_two(&world).await?;
    let writes = operator.wire.writes();
    let first = |path: &str| {
        let path = format!("POST /api/v1/namespaces/{}/{path}", world.namespace);
        writes.iter().position(|write| *write == path).with_context(|| format!("{path}: {writes:#?}"))
    };
    // The first pod that is made inspects the weights.
    let pods = format!("POST /api/v1/namespaces/{}/pods", world.namespace);
    let rank = writes.iter().enumerate().filter(|(_, write)| **write == pods).nth(1).context("no rank")?.0;
    assert!(first("configmaps")? < rank && first("secrets")? < rank, "{writes:#?}");

    let (object, map) = map(&world).await?;
    assert_eq!((map.version(), map.ranks(), map.layers(), map.experts()), (1, 2, 4, 8));
    let contents = object.data.context("empty")?;
    assert_eq!(contents[EXPERT_TABLE_FILE], map.table());
    let peers: Peers = serde_json::from_str(&contents[PEERS_FILE])?;
    let address = format!("smol-0-1.smol-ranks.{}.svc:8081", world.namespace);
    assert_eq!(peers.address(1), Some(address.as_str()));
    let pod = world.api::<Pod>().get("smol-0-1").await?;
    let container = container(&pod)?;
    assert!(container.args.clone().unwrap_or_default().join(" ").contains("--rank 1 --expert-map"));
    let mounts: Vec<_> = container.volume_mounts.iter().flatten().map(|it| it.mount_path.as_str()).collect();
    assert_eq!(mounts, ["/model", "/etc/coterie/experts", "/etc/coterie/exchange-tls"]);
    let secret = world.api::<Secret>().get(SECRET).await?;
    assert_eq!(secret.owner_references(), object.metadata.owner_references.as_deref().unwrap_or_default());
    let keys: Vec<String> = secret.data.context("empty")?.into_keys().collect();
    assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"]);

    let told = told(&world, |told| told.routing == 2).await?;
    assert_eq!((told.version, told.ranks, told.loaded, told.lost, told.last_move), (1, 2, 2, 0, None));
    assert_eq!(world.read(NAME).await?.status.and_then(|status| status.ranks), Some(2));
    Ok(())
}

#[tokio::test]
async fn ranks_come_and_go_without_a_restart_of_those_that_stay() -> Result<()> {
    let world = World::with_node("width").await?;
    let operator = world.operator()?;
    let [first, second] = serve_two(&world).await?;
    let before = uids(&world, &["smol-0-0", "smol-0-1"]).await?;

    world.change(NAME, json!({"spec": {"ranks": 3}})).await?;
    world.ranks_are(&["smol-0-0", "smol-0-1", "smol-0-2"]).await?;
    assert_eq!(map(&world).await?.1.version(), 1, "it has no share before it is ready");
    let third = start(&world, 2, 1).await?;
    assert_eq!(map_is(&world, 2).await?.ranks(), 3);
    let moving = told(&world, |told| told.last_move.is_some()).await?.last_move.context("no move")?;
    assert_eq!((moving.why.as_str(), moving.outcome), ("ranks went from 2 to 3", MoveOutcome::Moving));
    // The kubelet delivers the files because the pods change.
    eventually("the annotation of all pods", || {
        Box::pin(async {
            let told =
                |pod: &Pod| pod.annotations().get(ANNOTATION_EXPERTS).is_some_and(|it| it.starts_with("2-"));
            Ok(world.ranks().await?.iter().all(told).then_some(()))
        })
    })
    .await?;
    [&first, &second, &third].iter().for_each(|rank| rank.follow(2));
    let is_done = |told: &ReplicaExpertsStatus| {
        told.last_move.as_ref().is_some_and(|moved| moved.outcome == MoveOutcome::Done)
    };
    told(&world, is_done).await?;

    world.change(NAME, json!({"spec": {"ranks": 2}})).await?;
    assert_eq!(map_is(&world, 3).await?.ranks(), 2);
    first.follow(3);
    told(&world, |told| told.routing == 1).await?;
    assert_eq!(world.ranks().await?.len(), 3, "one rank still sends tokens to the third");
    second.follow(3);
    world.ranks_are(&["smol-0-0", "smol-0-1"]).await?;
    world.kubelet().gone("smol-0-2").await?;
    world.condition(NAME, READY, "True", None).await?;
    assert_eq!(uids(&world, &["smol-0-0", "smol-0-1"]).await?, before);
    let deleted: Vec<String> =
        operator.wire.writes().into_iter().filter(|write| write.starts_with("DELETE")).collect();
    assert_eq!(deleted.iter().filter(|write| write.contains("/pods/smol-0-")).count(), 1, "{deleted:?}");
    Ok(())
}

#[tokio::test]
async fn a_lost_rank_comes_back_in_its_place() -> Result<()> {
    let world = World::with_node("rank").await?;
    let _operator = world.operator()?;
    let _ranks = serve_two(&world).await?;
    let before = uids(&world, &["smol-0-0", "smol-0-1"]).await?;
    world.destroy("smol-0-1").await?;
    let lost = told(&world, |told| told.lost > 0).await?;
    assert_eq!(lost.lost, 16, "four of eight experts in four layers");
    world.condition(NAME, SERVING, "True", Some(reason::ANSWERING)).await?;
    world.condition(NAME, READY, "False", None).await?;
    world.ranks_are(&["smol-0-0", "smol-0-1"]).await?;
    let _again = start(&world, 1, 1).await?;
    world.condition(NAME, READY, "True", None).await?;
    let after = uids(&world, &["smol-0-0", "smol-0-1"]).await?;
    assert_eq!(after[0], before[0]);
    assert_ne!(after[1], before[1]);
    assert_eq!(told(&world, |told| told.lost == 0).await?.version, 1);
    Ok(())
}

#[tokio::test]
async fn certificates_are_changed_with_overlap_and_no_pod_is() -> Result<()> {
    let world = World::with_node("certificates").await?;
    let options = Options { certificate_seconds: 12, ..world.options() };
    let _operator = world.operator_on(Wire::default(), options)?;
    let _ranks = serve_two(&world).await?;
    let before = uids(&world, &["smol-0-0", "smol-0-1"]).await?;
    let secrets = world.api::<Secret>();
    let bytes = |secret: &Secret, key: &str| secret.data.as_ref().and_then(|it| it.get(key).cloned());
    let first = secrets.get(SECRET).await?;
    let announced = eventually("the next certificate", || {
        Box::pin(async {
            let secret = secrets.get(SECRET).await?;
            Ok(Some(secret).filter(|it| it.annotations().contains_key(ANNOTATION_NEXT_VALID)))
        })
    })
    .await?;
    let next = bytes(&announced, "next.crt").context("no next certificate")?;
    let switched = eventually("the change", || {
        Box::pin(async {
            let secret = secrets.get(SECRET).await?;
            Ok(Some(secret).filter(|it| bytes(it, "tls.crt").as_ref() == Some(&next)))
        })
    })
    .await?;
    assert_ne!(bytes(&switched, "ca.crt"), bytes(&first, "ca.crt"));
    eventually("pods that were told", || {
        Box::pin(async {
            let valid = secrets.get(SECRET).await?.annotations().get(ANNOTATION_VALID).cloned();
            let told = |pod: &Pod| {
                let annotation = pod.annotations().get(ANNOTATION_CERTIFICATES);
                annotation.zip(valid.as_ref()).is_some_and(|(told, valid)| told.starts_with(valid))
            };
            Ok(world.ranks().await?.iter().all(told).then_some(()))
        })
    })
    .await?;
    assert_eq!(uids(&world, &["smol-0-0", "smol-0-1"]).await?, before);
    Ok(())
}

#[tokio::test]
async fn the_load_on_experts_is_told_once_a_window_and_a_quiet_one_writes_nothing() -> Result<()> {
    let world = World::with_node("load").await?;
    let options = Options { expert_window_seconds: 3, resync_seconds: 1, ..world.options() };
    let operator = world.operator_on(Wire::default(), options)?;
    let [first, second] = serve_two(&world).await?;
    let map = map(&world).await?.1;
    let mut counts = vec![vec![0_u64; 8]; 4];
    first.count(counts.clone());
    second.count(counts.clone());
    told(&world, |told| told.routing == 2).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Rank 0 gets three quarters of the tokens of whatever stretch this falls into.
    for (number, layer) in counts.iter_mut().enumerate() {
        layer[usize::from(map.held(number, 0)[0])] = 300;
        layer[usize::from(map.held(number, 1)[0])] = 100;
    }
    first.count(counts);
    let told = told(&world, |told| told.balance.is_some()).await?;
    assert_eq!(told.balance.as_deref(), Some("1.50"));
    let status = world.read(NAME).await?.status.and_then(|status| status.experts).context("no experts")?;
    assert_eq!(status.balance.as_deref(), Some("1.50"));

    // On a busy machine a rank's report may come so late that the status counts it out, and in again. Who wrote for reports alone would
    // do so in every stretch of two windows.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (writes, before) = (operator.wire.writes(), world.read(NAME).await?.status);
        tokio::time::sleep(Duration::from_secs(7)).await;
        if operator.wire.writes() == writes {
            assert_eq!(world.read(NAME).await?.status, before);
            return Ok(());
        }
    }
    bail!("reports and resyncs alone lead to writes")
}

#[tokio::test]
async fn what_belongs_to_somebody_else_is_named_and_left_alone() -> Result<()> {
    let world = World::with_node("foreign").await?;
    let _operator = world.operator()?;
    let metadata = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let params = PostParams::default();
    let (maps, secrets) = (world.api::<ConfigMap>(), world.api::<Secret>());
    secrets.create(&params, &Secret { metadata: metadata(SECRET), ..Secret::default() }).await?;
    maps.create(&params, &ConfigMap { metadata: metadata(MAP), ..ConfigMap::default() }).await?;
    world.apply(&of_ranks(&world, 2)).await?;
    let pod = world.inspect_pod().await?;
    world.kubelet().bind(&pod, &world.node_name("a")).await?;
    world.kubelet().inspected(&pod, &inspection()).await?;
    let refused = world.condition(NAME, ROLLED_OUT, "False", Some(reason::APPLY_FAILED)).await?;
    assert!(refused.message.contains("a ConfigMap named smol-0-experts is there already"), "{refused:?}");
    maps.delete(MAP, &DeleteParams::default()).await?;
    let taken = world.condition(NAME, ROLLED_OUT, "False", Some(reason::SECRET_NAME_TAKEN)).await?;
    assert!(taken.message.contains("Secret smol-exchange-tls in namespace"), "{taken:?}");
    assert!(secrets.get(SECRET).await?.data.is_none());
    assert!(world.ranks().await?.is_empty());
    secrets.delete(SECRET, &DeleteParams::default()).await?;
    world.ranks_are(&["smol-0-0", "smol-0-1"]).await?;
    Ok(())
}
