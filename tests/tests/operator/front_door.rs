//! The front door's table, from a real API server, with exactly the chart's rights.

use anyhow::Result;
use coterie_api::name::{LABEL_DEPLOYMENT, PORT_HTTP};
use coterie_runtime::route::{Table, cluster};
use coterie_tests::world::{World, eventually};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

type Seen = watch::Receiver<Table>;

/// A watch of `namespaces`, as a router has it; for as long as the second value lives.
fn follow(world: &World, namespaces: &[String]) -> Result<(Seen, JoinSet<()>)> {
    let (namespaces, client) = (namespaces.to_vec(), world.front_door()?);
    let (tell, seen) = watch::channel(Table::default());
    let mut task = JoinSet::new();
    task.spawn(async move {
        cluster::follow(client, &namespaces, |table| drop(tell.send_replace(table))).await;
    });
    Ok((seen, task))
}

/// Waits until the router's table has these models of the world, with these ranks.
async fn sees(world: &World, seen: &Seen, expected: &[(&str, &str, &[&str])]) -> Result<()> {
    eventually(&format!("{expected:?}"), || {
        Box::pin(async {
            let table = seen.borrow().clone();
            let models = table.models.into_iter().filter(|model| model.key.namespace == world.namespace);
            let models: Vec<_> = models
                .map(|model| (model.key.name, model.served_name, model.ranks.into_iter().collect::<Vec<_>>()))
                .collect();
            let same = models.len() == expected.len()
                && models.iter().zip(expected).all(|((name, served, ranks), wanted)| {
                    (&**name, &**served) == (wanted.0, wanted.1) && *ranks == *wanted.2
                });
            Ok(same.then_some(()))
        })
    })
    .await
}

/// What Kubernetes writes for the Service of `model`.
async fn endpoints(world: &World, model: &str, addresses: &[(&str, bool)]) -> Result<()> {
    let endpoint =
        |(address, ready): &(&str, bool)| json!({"addresses": [address], "conditions": {"ready": ready}});
    let slice: Value = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("{model}-x"),
            "labels": {"kubernetes.io/service-name": model, (LABEL_DEPLOYMENT): model},
        },
        "ports": [{"name": PORT_HTTP, "port": 8080, "protocol": "TCP"}],
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
    });
    let slices: Api<EndpointSlice> = world.api();
    slices.patch(&format!("{model}-x"), &PatchParams::apply("tests").force(), &Patch::Apply(slice)).await?;
    Ok(())
}

#[tokio::test]
async fn models_and_ready_ranks_are_followed() -> Result<()> {
    let world = World::new("door").await?;
    let (seen, _task) = follow(&world, &[])?;
    let mut named = world.deployment("named");
    named["spec"]["model"]["servedName"] = "org/named".into();
    world.apply(&world.deployment("smol")).await?;
    world.apply(&named).await?;
    sees(&world, &seen, &[("named", "org/named", &[]), ("smol", "smol", &[])]).await?;
    endpoints(&world, "smol", &[("10.0.0.1", true), ("10.0.0.2", false)]).await?;
    sees(&world, &seen, &[("named", "org/named", &[]), ("smol", "smol", &["10.0.0.1:8080"])]).await?;
    endpoints(&world, "smol", &[("10.0.0.2", true)]).await?;
    sees(&world, &seen, &[("named", "org/named", &[]), ("smol", "smol", &["10.0.0.2:8080"])]).await?;
    world.api::<coterie_api::deployment::ModelDeployment>().delete("named", &DeleteParams::default()).await?;
    world.api::<EndpointSlice>().delete("smol-x", &DeleteParams::default()).await?;
    sees(&world, &seen, &[("smol", "smol", &[])]).await
}

#[tokio::test]
async fn a_list_of_namespaces_is_all_that_is_seen() -> Result<()> {
    let (one, other) = (World::new("door").await?, World::new("door").await?);
    let (seen, _task) = follow(&one, std::slice::from_ref(&one.namespace))?;
    other.apply(&other.deployment("hidden")).await?;
    one.apply(&one.deployment("shown")).await?;
    sees(&one, &seen, &[("shown", "shown", &[])]).await?;
    sees(&other, &seen, &[]).await
}
