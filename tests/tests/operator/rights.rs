//! The chart's rules and the operator's calls are the same set. That no right is missing shows in every test, since the
//! operators of all tests have the chart's rights; that none is there in vain shows here.

use crate::leader::{LEASE_IN_USE, holder};
use anyhow::Result;
use coterie_api::name::LEASE;
use coterie_operator::Options;
use coterie_tests::api_server::{OPERATOR_ACCOUNT, OPERATOR_NAMESPACE};
use coterie_tests::wire::{Call, Trouble, Wire};
use coterie_tests::world::{World, eventually};
use http::Method;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use std::collections::BTreeSet;

const NAME: &str = "smol";

#[tokio::test]
async fn the_chart_grants_no_verb_that_is_never_used() -> Result<()> {
    let granted = granted().await?;
    let used = used().await?;
    let superfluous: Vec<_> = granted.difference(&used).collect();
    assert!(superfluous.is_empty(), "remove from charts/coterie/templates/rbac.yaml: {superfluous:#?}");
    Ok(())
}

/// `verb group/resource` of every rule that helm renders.
async fn granted() -> Result<BTreeSet<String>> {
    let world = World::new("rights").await?;
    let role = Api::<ClusterRole>::all(world.client.clone()).get(OPERATOR_ACCOUNT).await?;
    let local =
        Api::<Role>::namespaced(world.client.clone(), OPERATOR_NAMESPACE).get(OPERATOR_ACCOUNT).await?;
    let rules = role.rules.unwrap_or_default().into_iter().chain(local.rules.unwrap_or_default());
    Ok(rules.flat_map(|rule| rights(&rule)).collect())
}

fn rights(rule: &PolicyRule) -> Vec<String> {
    let mut rights = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            rights.extend(rule.verbs.iter().map(|verb| format!("{verb} {group}/{resource}")));
        }
    }
    rights
}

/// What an operator uses in a life that passes through every place where it calls the API server.
async fn used() -> Result<BTreeSet<String>> {
    let _lease = LEASE_IN_USE.lock().await;
    let world = World::with_node("rights").await?;
    let leases = Api::<Lease>::namespaced(world.client.clone(), OPERATOR_NAMESPACE);
    let _ = leases.delete(LEASE, &DeleteParams::default()).await;
    // The Lease, two Services, the pod: its answer is lost and it is not seen, so it is created and read again.
    let wire = Wire::with(Trouble::AnswerLost(4));
    wire.fail(Some("/api/v1/pods?&watch=true"));
    let options = Options { no_leader_election: false, pod_uid: Some("u".to_owned()), ..world.options() };
    let operator = world.operator_on(wire.clone(), options)?;
    world.apply(&world.deployment(NAME)).await?;
    called(&wire, "get /pods").await?;
    wire.fail(None);
    called(&wire, "watch /pods").await?;
    let claim = json!({"spec": {"model": {"source": {
        "image": null, "persistentVolumeClaim": {"claimName": "weights"}
    }}}});
    world.change(NAME, claim).await?;
    called(&wire, "delete /pods").await?;
    called(&wire, "get /persistentvolumeclaims").await?;
    // The same change of a condition again and again becomes one Event with a count.
    for replicas in [0, 1, 0, 1, 0] {
        world.change(NAME, json!({"spec": {"replicas": replicas}})).await?;
        let generation = world.read(NAME).await?.metadata.generation;
        eventually("a status of the new generation", || {
            Box::pin(async {
                let status = world.read(NAME).await?.status;
                Ok(status.filter(|it| it.observed_generation == generation))
            })
        })
        .await?;
    }
    called(&wire, "patch events.k8s.io/events").await?;
    called(&wire, "update coordination.k8s.io/leases").await?;
    operator.stop().await?;
    let mut used: BTreeSet<String> = wire.calls().iter().flat_map(needs).collect();
    used.extend(used_for_several_ranks().await?);
    // Asked for by an admission plugin of this API server: our objects block the deletion of their owner, and the Lease
    // changes its owner.
    used.insert("update coterie.dev/modeldeployments/finalizers".to_owned());
    used.insert("delete coordination.k8s.io/leases".to_owned());
    assert_eq!(holder(&world).await?, "", "without that right the Lease was not released");
    Ok(used)
}

/// What it uses for a replica of several ranks: map and certificates come, change, and go.
async fn used_for_several_ranks() -> Result<BTreeSet<String>> {
    let world = World::with_node("rights").await?;
    let foreign = json!({"metadata": {"name": "smol-0-experts"}});
    let maps: Api<ConfigMap> = world.api();
    maps.create(&PostParams::default(), &serde_json::from_value(foreign)?).await?;
    let wire = Wire::default();
    let options = Options { certificate_seconds: 10, ..world.options() };
    let operator = world.operator_on(wire.clone(), options)?;
    let playing = tokio::spawn(world.kubelet().play(world.node_name("a")));
    let mut deployment = world.deployment(NAME);
    deployment["spec"]["ranks"] = json!(2);
    world.apply(&deployment).await?;
    called(&wire, "get /configmaps").await?;
    maps.delete("smol-0-experts", &DeleteParams::default()).await?;
    world.condition(NAME, "Ready", "True", None).await?;
    world.change(NAME, json!({"spec": {"ranks": 3}})).await?;
    called(&wire, "patch /configmaps").await?;
    called(&wire, "patch /pods").await?;
    called(&wire, "patch /secrets").await?;
    world.change(NAME, json!({"spec": {"replicas": 0}})).await?;
    called(&wire, "delete /configmaps").await?;
    operator.stop().await?;
    playing.abort();
    Ok(wire.calls().iter().flat_map(needs).collect())
}

async fn called(wire: &Wire, right: &str) -> Result<()> {
    eventually(right, || {
        Box::pin(async {
            Ok(wire.calls().iter().flat_map(needs).any(|needed| needed == right).then_some(()))
        })
    })
    .await
}

/// What the API server's authorizer is asked for one call.
fn needs(call: &Call) -> Vec<String> {
    let mut parts = call.path.trim_matches('/').split('/');
    let group = match parts.next() {
        Some("apis") => parts.next().unwrap_or_default(),
        _ => "",
    };
    parts.next(); // the version
    let mut rest: Vec<&str> = parts.collect();
    if rest.len() > 2 && rest.first() == Some(&"namespaces") {
        rest.drain(..2);
    }
    let (resource, name, subresource) = (rest.first(), rest.get(1), rest.get(2));
    let resource = match (resource, subresource) {
        (Some(resource), Some(subresource)) => format!("{resource}/{subresource}"),
        (resource, _) => resource.copied().unwrap_or_default().to_owned(),
    };
    let verbs: &[&str] = match call.method {
        Method::GET if call.query.contains("watch=true") => &["watch"],
        Method::GET if name.is_some() => &["get"],
        Method::GET => &["list"],
        Method::POST => &["create"],
        Method::PUT => &["update"],
        Method::DELETE => &["delete"],
        // An apply may have to make the object.
        Method::PATCH if resource == "services" => &["create", "patch"],
        _ => &["patch"],
    };
    verbs.iter().map(|verb| format!("{verb} {group}/{resource}")).collect()
}
