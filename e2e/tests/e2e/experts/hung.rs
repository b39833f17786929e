//! A rank that hangs: its process is there and does nothing, so no connection to it breaks.

use super::{address, ready, routed_by_all, says, uids};
use crate::READY;
use anyhow::{Result, ensure};
use coterie_e2e::chat::question;
use coterie_e2e::load::Load;
use coterie_e2e::namespace::is_ready;
use coterie_e2e::node::hang_processes_of;
use coterie_e2e::wait::until;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_rank_that_hangs_is_left_out_and_begins_anew() -> Result<()> {
    let (namespace, ranks) = ready("e2e-hung", 3).await?;
    let expected = says(&ranks[0], "Count to five.").await?;

    let load = Load::start(&address(&ranks[0])?, &question("chat", "Name three colours.", 12), 2);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let hung = Instant::now();
    hang_processes_of(&ranks[1])?;
    let after = says(&ranks[0], "Count to five.").await?;
    println!("an answer of 12 tokens came {:?} after a rank hung", hung.elapsed());
    ensure!(after == expected, "{after:?}, not {expected:?}");
    let again = until("the rank to begin anew", READY, || async {
        let pods = namespace.ranks("chat").await?;
        let anew = pods.len() == 3 && life(&pods[1]) != life(&ranks[1]) && pods.iter().all(is_ready);
        Ok(if anew { Ok(pods) } else { Err(format!("{:?}", pods.iter().map(life).collect::<Vec<_>>())) })
    })
    .await?;
    println!("the replica was whole again {:?} after that", hung.elapsed());
    ensure!([0, 2].map(|at| life(&again[at])) == [0, 2].map(|at| life(&ranks[at])), "others began anew too");
    routed_by_all(&again).await?;
    println!("{} requests answered meanwhile", load.finish_without_failure().await?);
    for pod in &again {
        ensure!(says(pod, "Count to five.").await? == expected);
    }

    // One that hangs is taken away as one that does not.
    let load = Load::start(&address(&again[0])?, &question("chat", "Name three colours.", 12), 1);
    hang_processes_of(&again[2])?;
    let hung = Instant::now();
    namespace.patch("chat", json!({"spec": {"ranks": 2}})).await?;
    let two = namespace.ready_ranks("chat", 2, READY).await?;
    println!("two ranks were left {:?} after the third one hung", hung.elapsed());
    ensure!(uids(&two) == uids(&again[..2]), "another rank than the last was taken away");
    routed_by_all(&two).await?;
    println!("{} requests answered meanwhile", load.finish_without_failure().await?);
    ensure!(says(&two[1], "Count to five.").await? == expected);
    namespace.delete().await
}

/// What changes when a pod is replaced, or its container begins anew.
fn life(pod: &Pod) -> (Option<String>, Vec<i32>) {
    let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
    (pod.uid(), status.unwrap_or_default().iter().map(|container| container.restart_count).collect())
}
