//! Traffic that asks for few of the experts: they are moved, and nobody notices.

use super::{address, ready, routed_by_all, says};
use crate::READY;
use anyhow::{Context, Result, ensure};
use coterie_e2e::chat::question;
use coterie_e2e::load::Load;
use coterie_e2e::namespace::Namespace;
use coterie_e2e::wait::until;
use serde_json::Value;
use std::time::Duration;

/// Long enough for a few windows of counting.
const REBALANCE: Duration = Duration::from_secs(180);

#[tokio::test]
async fn skewed_traffic_moves_experts_and_fails_no_request() -> Result<()> {
    let (namespace, ranks) = ready("e2e-hot", 3).await?;
    let expected = says(&ranks[0], "Count to five.").await?;
    let begun = replica(&namespace).await?;
    let version = begun["version"].as_i64();

    // One prompt over and over asks for the same experts.
    let body = question("chat", "Name three colours.", 48);
    let loads =
        ranks.iter().map(|pod| Ok(Load::start(&address(pod)?, &body, 1))).collect::<Result<Vec<_>>>()?;
    let moved = until("experts to be moved", REBALANCE, || async {
        let replica = replica(&namespace).await?;
        let is_new = replica["version"].as_i64() > version && replica.get("lastMove").is_some();
        Ok(if is_new { Ok(replica) } else { Err(replica.to_string()) })
    })
    .await?;
    println!("{}", moved["lastMove"]);
    routed_by_all(&ranks).await?;
    let before: f64 = moved["lastMove"]["balanceBefore"].as_str().context("no balance before")?.parse()?;
    // The status keeps the balance of before until the load by the new map is counted.
    let after = until("a better balance", REBALANCE, || async {
        let balance = replica(&namespace).await?["balance"].as_str().map(str::parse::<f64>).transpose()?;
        Ok(balance.filter(|after| *after < before).ok_or_else(|| format!("{balance:?}, and {before} before")))
    })
    .await?;
    println!("balance {before} before and {after} after");
    for load in loads {
        println!("{} requests answered by one rank meanwhile", load.finish_without_failure().await?);
    }
    ensure!(says(&ranks[1], "Count to five.").await? == expected, "the move changed an answer");
    let still = namespace.ready_ranks("chat", 3, READY).await?;
    ensure!(super::uids(&still) == super::uids(&ranks), "a rank was replaced");
    namespace.delete().await
}

/// What the status says of the experts of the only replica.
async fn replica(namespace: &Namespace) -> Result<Value> {
    let object = namespace.deployments().get("chat").await?;
    let replica = object.data["status"]["experts"]["replicas"][0].clone();
    ensure!(replica.is_object(), "no experts in {}", object.data["status"]);
    Ok(replica)
}
