//! The chart's upgrade and the end of a ModelDeployment.

use crate::{NOTICE, READY, deploy};
use anyhow::{Context, Result, ensure};
use coterie_e2e::namespace::Namespace;
use coterie_e2e::{operator, wait};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use std::process::Command;

#[tokio::test]
async fn an_upgrade_of_the_operator_touches_no_rank() -> Result<()> {
    let namespace = Namespace::create("e2e-upgrade").await?;
    deploy(&namespace, 1).await?;
    let before = namespace.ready_ranks("chat", 1, READY).await?;
    let operators = operator::pods(&namespace.client).await?;

    let chart = std::env::var("COTERIE_CHART").context("COTERIE_CHART is not set: run `cargo xtask test`")?;
    let upgrade = Command::new("helm")
        .args(["upgrade", "coterie", &chart, "-n", operator::NAMESPACE, "--reuse-values"])
        .args(["--set-string", &format!("podAnnotations.upgraded=by-{}", namespace.name)])
        .output()?;
    ensure!(upgrade.status.success(), "helm upgrade: {}", String::from_utf8_lossy(&upgrade.stderr));
    operator::replaced(&namespace.client, &operators, READY).await?;

    // The new operator has seen the object once it answers a change of it.
    namespace.scale("chat", 2).await?;
    let after = namespace.ready_ranks("chat", 2, READY).await?;
    ensure!(after.iter().any(|pod| pod.uid() == before[0].uid()), "the pod was replaced by the upgrade");
    ensure!(
        after
            .iter()
            .all(|pod| pod.labels().get("coterie.dev/revision")
                == before[0].labels().get("coterie.dev/revision")),
        "the upgrade changed the revision"
    );
    namespace.delete().await
}

#[tokio::test]
async fn a_deleted_deployment_leaves_nothing_behind() -> Result<()> {
    let namespace = Namespace::create("e2e-delete").await?;
    deploy(&namespace, 1).await?;
    namespace.deployments().delete("chat", &DeleteParams::default()).await?;
    let all = ListParams::default();
    wait::until("everything to be gone", READY, || async {
        let client = &namespace.client;
        let mut left: Vec<String> = Vec::new();
        left.extend(namespace.pods().list(&all).await?.iter().map(|o| format!("pod {}", o.name_any())));
        let services: Api<Service> = Api::namespaced(client.clone(), &namespace.name);
        left.extend(services.list(&all).await?.iter().map(|o| format!("service {}", o.name_any())));
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &namespace.name);
        left.extend(slices.list(&all).await?.iter().map(|o| format!("endpoint slice {}", o.name_any())));
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace.name);
        let maps = maps.list(&all).await?;
        left.extend(maps.iter().map(ResourceExt::name_any).filter(|name| name != "kube-root-ca.crt"));
        left.extend(
            namespace.deployments().list(&all).await?.iter().map(|o| format!("mdep {}", o.name_any())),
        );
        Ok(if left.is_empty() { Ok(()) } else { Err(left.join(", ")) })
    })
    .await?;
    // And it can come back.
    deploy(&namespace, 1).await?;
    namespace.condition("chat", "Ready", "True", NOTICE).await?;
    namespace.delete().await
}
