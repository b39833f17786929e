//! A node goes away for good, with a rank on it.

use super::{address, routed_by_all, says, spread, uids};
use crate::READY;
use anyhow::{Context, Result, ensure};
use coterie_e2e::chat::question;
use coterie_e2e::load::Load;
use coterie_e2e::namespace::{Namespace, is_ready};
use coterie_e2e::node::{Stopped, kill_processes_of};
use coterie_e2e::wait::until;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::ResourceExt;
use serde_json::json;
use std::time::{Duration, Instant};

/// Kubernetes takes a node for lost after 50 s; then come the pod's tolerance, its drain, and 30 s of ours.
const REPLACED: Duration = Duration::from_secs(240);

#[tokio::test]
async fn a_rank_on_a_lost_node_is_replaced_on_another() -> Result<()> {
    let namespace = Namespace::create("e2e-lost-node").await?;
    let mut spec = spread(2);
    spec["rollout"] = json!({"drainSeconds": 5});
    spec["template"] = json!({"tolerations": [
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
    ]});
    namespace.apply("chat", spec).await?;
    namespace.condition("chat", "Ready", "True", READY).await?;
    let ranks = namespace.ready_ranks("chat", 2, READY).await?;
    let expected = says(&ranks[0], "Count to five.").await?;
    let operator = coterie_e2e::operator::pods(&namespace.client).await?;
    // The operator is to be on a node that stays: another test kills it.
    let victim = ranks.iter().find(|pod| node_of(pod) != operator.first().and_then(node_of));
    let victim = victim.context("both ranks are beside the operator")?;
    let survivor = ranks.iter().find(|pod| pod.uid() != victim.uid()).context("there is one rank only")?;
    let lost_node = node_of(victim).context("the pod is on no node")?.to_owned();

    let load = Load::start(&address(survivor)?, &question("chat", "Name three colours.", 12), 2);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let lost = Instant::now();
    let stopped = Stopped::node(&lost_node)?;
    kill_processes_of(victim)?;
    ensure!(says(survivor, "Count to five.").await? == expected);
    println!("an answer of 12 tokens came {:?} after {lost_node} was lost", lost.elapsed());
    let again = until("the rank to be replaced on another node", REPLACED, || async {
        let pods = namespace.ranks("chat").await?;
        let new = pods.len() == 2 && uids(&pods) != uids(&ranks) && pods.iter().all(is_ready);
        Ok(if new { Ok(pods) } else { Err(format!("{:?}", pods.iter().map(seen).collect::<Vec<_>>())) })
    })
    .await?;
    println!("the replica was whole again {:?} after that", lost.elapsed());
    ensure!(again.iter().all(|pod| node_of(pod) != Some(&lost_node)), "it is on the lost node again");
    ensure!(again.iter().any(|pod| pod.uid() == survivor.uid()), "the rank that stayed was replaced");
    routed_by_all(&again).await?;
    println!("{} requests answered meanwhile", load.finish_without_failure().await?);
    for pod in &again {
        ensure!(says(pod, "Count to five.").await? == expected);
    }

    drop(stopped);
    let nodes: Api<Node> = Api::all(namespace.client.clone());
    until("the node to be back", READY, || async {
        let conditions = nodes.get(&lost_node).await?.status.and_then(|status| status.conditions);
        let ready = conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True");
        Ok(if ready { Ok(()) } else { Err(format!("{lost_node} is not ready")) })
    })
    .await?;
    namespace.delete().await
}

fn node_of(pod: &Pod) -> Option<&String> {
    pod.spec.as_ref()?.node_name.as_ref()
}

fn seen(pod: &Pod) -> (String, Option<&String>, bool) {
    (pod.name_any(), node_of(pod), is_ready(pod))
}
