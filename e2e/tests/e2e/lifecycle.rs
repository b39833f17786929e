//! The chart's upgrade and its end, and the end of a ModelDeployment.

use crate::{NOTICE, READY, deploy};
use anyhow::{Result, ensure};
use coterie_e2e::namespace::Namespace;
use coterie_e2e::{helm, operator, wait};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};

#[tokio::test]
async fn an_upgrade_of_the_operator_touches_no_rank() -> Result<()> {
    let namespace = Namespace::create("e2e-upgrade").await?;
    deploy(&namespace, 1).await?;
    let before = namespace.ready_ranks("chat", 1, READY).await?;
    let operators = operator::pods(&namespace.client).await?;

    let annotation = format!("podAnnotations.upgraded=by-{}", namespace.name);
    helm::run(&["upgrade", "coterie", &helm::chart()?, "--reuse-values", "--set-string", &annotation], "")?;
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
async fn an_uninstalled_operator_leaves_the_ranks_and_no_lease() -> Result<()> {
    let namespace = Namespace::create("e2e-uninstall").await?;
    deploy(&namespace, 1).await?;
    let before = namespace.ready_ranks("chat", 1, READY).await?;
    let values = helm::run(&["get", "values", "coterie", "-o", "yaml"], "")?;
    helm::run(&["uninstall", "coterie", "--wait"], "")?;
    // Its rights went before it could give the Lease back, so this is the garbage collector's doing.
    let leases: Api<Lease> = Api::namespaced(namespace.client.clone(), operator::NAMESPACE);
    let gone = wait::until("the Lease to be gone", NOTICE, || async {
        let lease = leases.get_opt("coterie-operator").await?;
        Ok(lease.map_or(Ok(()), |lease| Err(format!("{:?}", lease.spec))))
    })
    .await;
    // Before the verdict: the other tests need an operator.
    helm::run(&["install", "coterie", &helm::chart()?, "-f", "-", "--wait"], &values)?;
    gone?;
    namespace.scale("chat", 2).await?;
    let after = namespace.ready_ranks("chat", 2, READY).await?;
    ensure!(after.iter().any(|pod| pod.uid() == before[0].uid()), "the pod did not survive");
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
