//! A change of the spec rolls out pod by pod, without a broken stream, also when the operator dies half way.

use crate::{NOTICE, READY, deploy};
use anyhow::{Result, ensure};
use coterie_e2e::chat::{question, stream};
use coterie_e2e::load::Load;
use coterie_e2e::namespace::Namespace;
use coterie_e2e::{operator, wait};
use kube::ResourceExt;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_new_quantization_breaks_no_stream() -> Result<()> {
    let namespace = Namespace::create("e2e-rollout").await?;
    let endpoint = deploy(&namespace, 1).await?;
    let before = namespace.ready_ranks("chat", 1, READY).await?;

    // One long stream that outlives the change, and short requests beside it.
    let long = tokio::spawn({
        let (endpoint, body) =
            (endpoint.clone(), question("chat", "Tell me a long story about a river.", 400));
        async move { stream(&reqwest::Client::new(), &endpoint, &body, |_| ()).await }
    });
    let load = Load::start(&endpoint, &question("chat", "Name three colours.", 16), 2);
    namespace.patch("chat", json!({"spec": {"model": {"quantization": "None"}}})).await?;
    rolled_out(&namespace).await?;
    let after = namespace.ready_ranks("chat", 1, READY).await?;
    ensure!(before[0].uid() != after[0].uid(), "the pod was not replaced");

    let story = long.await??;
    ensure!(story.completion_tokens > 50, "the long stream gave only {} tokens", story.completion_tokens);
    println!("{} requests answered during the rollout", load.finish_without_failure().await?);
    let status = namespace.deployments().get("chat").await?.data["status"].clone();
    ensure!(status["quantization"] == "None", "{status}");
    namespace.delete().await
}

#[tokio::test]
async fn an_operator_killed_during_a_rollout_resumes_it() -> Result<()> {
    let namespace = Namespace::create("e2e-resume").await?;
    let endpoint = deploy(&namespace, 1).await?;
    let before = namespace.ready_ranks("chat", 1, READY).await?;
    let operators = operator::pods(&namespace.client).await?;

    let load = Load::start(&endpoint, &question("chat", "Name three colours.", 16), 2);
    namespace.patch("chat", json!({"spec": {"model": {"contextLength": 512}}})).await?;
    wait::until("the surged pod", NOTICE, || async {
        let ranks = namespace.ranks("chat").await?.len();
        Ok(if ranks == 2 { Ok(()) } else { Err(format!("{ranks} pods")) })
    })
    .await?;
    operator::kill(&namespace.client).await?;
    operator::replaced(&namespace.client, &operators, READY).await?;

    rolled_out(&namespace).await?;
    let after = namespace.ready_ranks("chat", 1, READY).await?;
    ensure!(before[0].uid() != after[0].uid(), "the pod was not replaced");
    load.finish_without_failure().await?;
    namespace.delete().await
}

/// Waits until the newest generation is what all pods run.
async fn rolled_out(namespace: &Namespace) -> Result<()> {
    namespace.condition("chat", "RolledOut", "True", READY).await?;
    namespace.condition("chat", "Ready", "True", Duration::from_secs(30)).await?;
    Ok(())
}
