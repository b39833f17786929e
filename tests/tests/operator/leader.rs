//! One operator acts, another stands by. All tests here share the one Lease that the chart's rules allow.

use anyhow::{Context, Result};
use coterie_api::name::LEASE;
use coterie_operator::{LEASE_DURATION, Options, RENEW_DEADLINE, RETRY_PERIOD};
use coterie_tests::api_server::OPERATOR_NAMESPACE;
use coterie_tests::wire::{Call, Wire};
use coterie_tests::world::{Operator, World, eventually};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Held by the one test that uses the Lease.
pub static LEASE_IN_USE: Mutex<()> = Mutex::const_new(());

fn candidate(world: &World, identity: &str) -> Result<Operator> {
    let options = Options {
        identity: format!("{}-{identity}", world.namespace),
        no_leader_election: false,
        pod_uid: Some(format!("uid-of-{identity}")),
        ..world.options()
    };
    world.operator_on(Wire::default(), options)
}

async fn lease(world: &World) -> Result<Option<Lease>> {
    Ok(Api::<Lease>::namespaced(world.client.clone(), OPERATOR_NAMESPACE).get_opt(LEASE).await?)
}

/// The identity in the Lease; empty if nobody holds it.
pub async fn holder(world: &World) -> Result<String> {
    Ok(lease(world).await?.and_then(|it| it.spec).and_then(|it| it.holder_identity).unwrap_or_default())
}

/// The uid of the pod with which the Lease is collected.
async fn owner(world: &World) -> Result<Option<String>> {
    let owners = lease(world).await?.and_then(|it| it.metadata.owner_references);
    let owner = owners.into_iter().flatten().next();
    Ok(owner.filter(|it| it.kind == "Pod" && it.api_version == "v1").map(|it| it.uid))
}

async fn leads(world: &World, identity: &str) -> Result<()> {
    let identity = format!("{}-{identity}", world.namespace);
    eventually(&format!("{identity} leads"), || {
        let identity = identity.clone();
        Box::pin(async move { Ok((holder(world).await? == identity).then_some(())) })
    })
    .await
}

#[tokio::test]
async fn one_acts_and_the_other_takes_over_when_it_ends() -> Result<()> {
    let _lease = LEASE_IN_USE.lock().await;
    let world = World::with_node("leader").await?;
    let first = candidate(&world, "first")?;
    leads(&world, "first").await?;
    let second = candidate(&world, "second")?;
    world.apply(&world.deployment("smol")).await?;
    world.inspect_pod().await?;
    assert!(!first.wire.writes().is_empty());
    // The second has looked at the Lease and whether the CRD fits it, and at nothing else.
    eventually("a look at the Lease", || {
        Box::pin(async { Ok(second.wire.calls().iter().any(|call| call.is_lease()).then_some(())) })
    })
    .await?;
    let looked = second.wire.calls();
    let is_known = |call: &Call| call.is_lease() || call.path.contains("/customresourcedefinitions/");
    assert!(looked.iter().all(|call| is_known(call) && !call.is_write()), "{looked:?}");
    assert_eq!(owner(&world).await?.as_deref(), Some("uid-of-first"));

    let start = Instant::now();
    first.stop().await?;
    leads(&world, "second").await?;
    assert_eq!(owner(&world).await?.as_deref(), Some("uid-of-second"), "it goes with its holder's pod");
    let took = start.elapsed();
    assert!(took < RETRY_PERIOD + Duration::from_secs(3), "it took over after {took:?}");
    world.apply(&world.deployment("other")).await?;
    eventually("a pod for the other", || {
        Box::pin(async {
            let pods = world.pods().await?;
            let found = pods
                .iter()
                .any(|pod| pod.metadata.name.as_deref().is_some_and(|name| name.starts_with("other-")));
            Ok(found.then_some(()))
        })
    })
    .await?;
    second.stop().await?;
    assert_eq!(holder(&world).await?, "", "the Lease is given back");
    assert_eq!(owner(&world).await?, None, "and does not go with a pod that ends");
    Ok(())
}

#[tokio::test]
async fn a_killed_leader_is_replaced_when_its_lease_has_ended_and_not_before() -> Result<()> {
    let _lease = LEASE_IN_USE.lock().await;
    let world = World::with_node("leader").await?;
    let first = candidate(&world, "first")?;
    leads(&world, "first").await?;
    let second = candidate(&world, "second")?;
    eventually("a look at the Lease", || {
        Box::pin(async { Ok(second.wire.calls().iter().any(|call| call.is_lease()).then_some(())) })
    })
    .await?;
    let renewed = lease(&world).await?.and_then(|it| it.spec?.renew_time).context("no renewal")?.0;
    first.kill().await;
    leads(&world, "second").await?;
    let acquired = lease(&world).await?.and_then(|it| it.spec?.acquire_time).context("not acquired")?.0;
    // Both candidates read the same clock here, so the Lease's own times can be compared.
    let waited = Duration::try_from(acquired.duration_since(renewed))?;
    assert!(waited >= LEASE_DURATION, "it took over after {waited:?}");
    assert!(waited < LEASE_DURATION + 2 * RENEW_DEADLINE, "it took over after {waited:?}");
    second.stop().await
}

/// As after a renewal whose answer was not waited for, because the operator was told to end.
#[tokio::test]
async fn a_lease_that_has_changed_since_is_given_back_all_the_same() -> Result<()> {
    let _lease = LEASE_IN_USE.lock().await;
    let world = World::with_node("leader").await?;
    let operator = candidate(&world, "only")?;
    leads(&world, "only").await?;
    let leases = Api::<Lease>::namespaced(world.client.clone(), OPERATOR_NAMESPACE);
    let touch = json!({"metadata": {"annotations": {"touched": "by-test"}}});
    leases.patch(LEASE, &PatchParams::default(), &Patch::Merge(touch)).await?;
    operator.stop().await?;
    assert_eq!(holder(&world).await?, "");
    Ok(())
}

/// The garbage collector, for which a pod's end is the end of what it owns, is played by the test.
#[tokio::test]
async fn a_lease_that_went_with_its_pod_is_not_waited_for() -> Result<()> {
    let _lease = LEASE_IN_USE.lock().await;
    let world = World::with_node("leader").await?;
    let first = candidate(&world, "first")?;
    leads(&world, "first").await?;
    first.kill().await;
    let second = candidate(&world, "second")?;
    eventually("a look at the Lease", || {
        Box::pin(async { Ok(second.wire.calls().iter().any(|call| call.is_lease()).then_some(())) })
    })
    .await?;
    let start = Instant::now();
    let leases = Api::<Lease>::namespaced(world.client.clone(), OPERATOR_NAMESPACE);
    leases.delete(LEASE, &DeleteParams::default()).await?;
    leads(&world, "second").await?;
    let took = start.elapsed();
    assert!(took < LEASE_DURATION / 2, "it took over after {took:?}");
    second.stop().await
}

#[tokio::test]
async fn a_leader_that_cannot_renew_ends_before_its_lease_does() -> Result<()> {
    let _lease = LEASE_IN_USE.lock().await;
    let world = World::with_node("leader").await?;
    let operator = candidate(&world, "only")?;
    leads(&world, "only").await?;
    let start = Instant::now();
    operator.wire.fail(Some("/leases"));
    eventually("the end of the operator", || Box::pin(async { Ok(operator.has_ended().then_some(())) }))
        .await?;
    let took = start.elapsed();
    assert!(took < RENEW_DEADLINE + Duration::from_secs(1), "it went on for {took:?}");
    assert!(RENEW_DEADLINE < LEASE_DURATION);
    let error = operator.stop().await.err().context("it ended without an error")?;
    assert!(error.to_string().contains("no longer leads"), "{error}");
    Ok(())
}
