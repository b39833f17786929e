//! Pods that are taken away by force.

use crate::{READY, deploy};
use anyhow::{Result, ensure};
use coterie_e2e::chat::{ask, question};
use coterie_e2e::namespace::Namespace;
use kube::ResourceExt;
use kube::api::DeleteParams;

#[tokio::test]
async fn a_pod_deleted_by_force_is_replaced() -> Result<()> {
    let namespace = Namespace::create("e2e-force").await?;
    deploy(&namespace, 1).await?;
    let before = namespace.ready_ranks("chat", 1, READY).await?;
    namespace.pods().delete(&before[0].name_any(), &DeleteParams::default().grace_period(0)).await?;

    namespace.condition("chat", "Ready", "False", READY).await?;
    namespace.condition("chat", "Ready", "True", READY).await?;
    let after = namespace.ready_ranks("chat", 1, READY).await?;
    ensure!(before[0].uid() != after[0].uid(), "the same pod is back");
    let endpoint = namespace.endpoint("chat").await?;
    let answer = ask(&reqwest::Client::new(), &endpoint, &question("chat", "Say hello.", 8)).await?;
    ensure!(!answer.text.is_empty());
    namespace.delete().await
}
