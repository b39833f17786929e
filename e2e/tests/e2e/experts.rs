//! A replica of several ranks: its experts are spread over pods, and pods come, go and die while it serves.

use crate::{READY, talking_model};
use anyhow::{Context, Result, ensure};
use coterie_api::name;
use coterie_e2e::chat::{Answer, ask, question};
use coterie_e2e::load::Load;
use coterie_e2e::namespace::Namespace;
use coterie_e2e::wait::until;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

mod certificates;
mod hot;
mod hung;
mod lost_node;

/// The talking model on `ranks` ranks, every expert but two of each layer's eight in one place only.
fn spread(ranks: u32) -> Value {
    let mut spec = talking_model(1);
    spec["ranks"] = json!(ranks);
    spec["experts"] = json!({"redundant": 2});
    spec
}

/// That model in a namespace of its own, once all its ranks are ready.
async fn ready(prefix: &str, ranks: u32) -> Result<(Namespace, Vec<Pod>)> {
    let namespace = Namespace::create(prefix).await?;
    namespace.apply("chat", spread(ranks)).await?;
    namespace.condition("chat", "Ready", "True", READY).await?;
    let pods = namespace.ready_ranks("chat", ranks as usize, READY).await?;
    Ok((namespace, pods))
}

/// `http://ADDRESS:PORT` of one pod.
fn address(pod: &Pod) -> Result<String> {
    let ip =
        pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("the pod has no address")?;
    Ok(format!("http://{ip}:{}", name::HTTP_PORT))
}

async fn says(pod: &Pod, content: &str) -> Result<Answer> {
    ask(&reqwest::Client::new(), &address(pod)?, &question("chat", content, 12)).await
}

/// What a rank tells about its experts.
async fn report(pod: &Pod) -> Result<Value> {
    Ok(reqwest::get(format!("{}/experts", address(pod)?)).await?.error_for_status()?.json().await?)
}

fn uids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().filter_map(ResourceExt::uid).collect()
}

#[tokio::test]
async fn ranks_share_experts_and_survive_a_lost_one() -> Result<()> {
    let (namespace, ranks) = ready("e2e-ranks", 2).await?;
    let names: Vec<String> = ranks.iter().map(ResourceExt::name_any).collect();
    ensure!(names == ["chat-0-0", "chat-0-1"], "{names:?}");
    let nodes: BTreeSet<_> = ranks.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    ensure!(nodes.len() == 2, "both ranks are on {nodes:?}");

    // The map, for people.
    let maps: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let map = maps.get("chat-0-experts").await?.data.unwrap_or_default();
    let table = map.get(name::EXPERT_TABLE_FILE).context("no table")?;
    println!("{}", table.lines().take(4).collect::<Vec<_>>().join("\n"));
    ensure!(table.contains("8 experts a layer on 2 ranks"), "{table}");

    // The same answer from both, and neither holds everything.
    let (zero, one) = (says(&ranks[0], "Count to five.").await?, says(&ranks[1], "Count to five.").await?);
    ensure!(zero == one && !zero.text.is_empty(), "{zero:?} {one:?}");
    let held = [report(&ranks[0]).await?["held"].clone(), report(&ranks[1]).await?["held"].clone()];
    ensure!(held == [json!(150), json!(150)], "30 layers of 10 slots on two ranks: {held:?}");

    // One is lost under load on the other: not a request of that fails, and no answer changes.
    let load = Load::start(&address(&ranks[0])?, &question("chat", "Name three colours.", 12), 2);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let lost = Instant::now();
    namespace.pods().delete("chat-0-1", &DeleteParams::default().grace_period(0)).await?;
    let after = says(&ranks[0], "Count to five.").await?;
    println!("an answer of 12 tokens came {:?} after the other rank was lost", lost.elapsed());
    ensure!(after == zero, "{after:?}, not {zero:?}");
    let again = until("the lost rank's pod to be replaced", READY, || async {
        let pods = namespace.ranks("chat").await?;
        let new = pods.len() == 2 && uids(&pods) != uids(&ranks);
        let ready = new && pods.iter().all(coterie_e2e::namespace::is_ready);
        Ok(if ready { Ok(pods) } else { Err(format!("{} pods", pods.len())) })
    })
    .await?;
    println!("the replica was whole again {:?} after it lost a rank", lost.elapsed());
    ensure!(again[0].uid() == ranks[0].uid(), "the rank that stayed was replaced");
    println!("{} requests answered meanwhile", load.finish_without_failure().await?);
    ensure!(says(&again[1], "Count to five.").await? == zero);
    joined_again(&again[0]).await?;
    namespace.delete().await
}

#[tokio::test]
async fn a_replica_becomes_wider_and_narrower_under_load() -> Result<()> {
    let (namespace, two) = ready("e2e-width", 2).await?;
    let expected = says(&two[0], "Count to five.").await?;

    let loads = [&two[0], &two[1]].map(|pod| {
        address(pod).map(|address| Load::start(&address, &question("chat", "Name three colours.", 12), 1))
    });
    namespace.patch("chat", json!({"spec": {"ranks": 3}})).await?;
    let three = namespace.ready_ranks("chat", 3, READY).await?;
    ensure!(uids(&three).is_superset(&uids(&two)), "a rank that was there was replaced");
    routed_by_all(&three).await?;
    ensure!(says(&three[2], "Count to five.").await? == expected);

    namespace.patch("chat", json!({"spec": {"ranks": 2}})).await?;
    let again = namespace.ready_ranks("chat", 2, READY).await?;
    ensure!(uids(&again) == uids(&two), "another rank than the last was taken away");
    routed_by_all(&again).await?;
    ensure!(says(&again[1], "Count to five.").await? == expected);
    for load in loads {
        println!("{} requests answered by one rank meanwhile", load?.finish_without_failure().await?);
    }
    for pod in &again {
        let report = report(pod).await?;
        ensure!(report["adopted"] == 0, "experts were lost on the way: {report}");
    }
    namespace.delete().await
}

/// Waits until a rank of two has the other one back.
async fn joined_again(pod: &Pod) -> Result<()> {
    until("the ranks to be joined again", READY, || async {
        let peers = report(pod).await?["peers"].clone();
        Ok(if peers[0]["state"] == "Alive" { Ok(()) } else { Err(peers.to_string()) })
    })
    .await
}

/// Waits until all ranks send by the same map, and hold what is theirs by it.
async fn routed_by_all(pods: &[Pod]) -> Result<()> {
    until("all ranks to send by one map", READY, || async {
        let mut versions = BTreeSet::new();
        for pod in pods {
            let report = report(pod).await?;
            versions.insert([report["readVersion"].as_u64(), report["routingVersion"].as_u64()]);
        }
        let one = versions.len() == 1 && versions.iter().all(|[read, routing]| read == routing);
        Ok(if one { Ok(()) } else { Err(format!("{versions:?}")) })
    })
    .await
}
