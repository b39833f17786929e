//! The operator's own pods, as the chart installed them.

use crate::wait::until;
use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams};
use kube::{Client, ResourceExt};
use std::time::Duration;

/// Namespace that `cargo xtask test` installs the chart into.
pub const NAMESPACE: &str = "coterie-system";
const SELECTOR: &str = "app.kubernetes.io/name=coterie,app.kubernetes.io/component=operator";

/// The operator's pods that nobody is deleting.
pub async fn pods(client: &Client) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let mut pods = api.list(&ListParams::default().labels(SELECTOR)).await?.items;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(pods)
}

/// Kills the operator without a word of warning: its pods are deleted with no grace period.
pub async fn kill(client: &Client) -> Result<()> {
    let victims = pods(client).await?;
    ensure!(!victims.is_empty(), "no operator pod in {NAMESPACE}");
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    for pod in victims {
        api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    }
    Ok(())
}

/// Waits until an operator pod is Ready that is none of `before`.
pub async fn replaced(client: &Client, before: &[Pod], limit: Duration) -> Result<()> {
    let old: Vec<_> = before.iter().filter_map(ResourceExt::uid).collect();
    until("another operator pod to be ready", limit, || async {
        let fresh = pods(client)
            .await?
            .into_iter()
            .any(|pod| crate::namespace::is_ready(&pod) && pod.uid().is_some_and(|uid| !old.contains(&uid)));
        Ok(if fresh { Ok(()) } else { Err("only the old ones, or none ready".to_owned()) })
    })
    .await
}
