//! `kubectl scale` up and down under load.

use crate::{READY, deploy};
use anyhow::Result;
use coterie_e2e::chat::question;
use coterie_e2e::load::Load;
use coterie_e2e::namespace::Namespace;
use kube::ResourceExt;

#[tokio::test]
async fn scaling_up_and_down_fails_no_request() -> Result<()> {
    let namespace = Namespace::create("e2e-scale").await?;
    let endpoint = deploy(&namespace, 1).await?;
    let first = namespace.ready_ranks("chat", 1, READY).await?;

    let load = Load::start(&endpoint, &question("chat", "Count from one to ten.", 24), 3);
    namespace.scale("chat", 2).await?;
    let both = namespace.ready_ranks("chat", 2, READY).await?;
    assert!(both.iter().any(|pod| pod.uid() == first[0].uid()), "scaling up replaced the first pod");
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    namespace.scale("chat", 1).await?;
    namespace.ready_ranks("chat", 1, READY).await?;
    // The drained pod still finishes its streams: the load goes on until it is gone.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    let answered = load.finish_without_failure().await?;
    println!("{answered} requests answered while scaling 1 -> 2 -> 1");
    namespace.delete().await
}
