//! The operator's figures for docs/bench, measured on the binary that is shipped. Not part of a test run:
//!
//! ```text
//! cargo build --release -p coterie-operator
//! cargo test --release -p coterie-tests --test operator -- --ignored --nocapture figures
//! ```

use crate::leader::LEASE_IN_USE;
use anyhow::{Context, Result};
use coterie_operator::Options;
use coterie_tests::api_server::{ApiServer, OPERATOR_NAMESPACE};
use coterie_tests::process;
use coterie_tests::wire::Wire;
use coterie_tests::world::{World, eventually};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use std::path::Path;
use std::pin::pin;
use std::process::Child;
use std::time::{Duration, Instant};

const DEPLOYMENTS: usize = 20;
const FOREIGN_PODS: usize = 1000;
const IDLE: Duration = Duration::from_secs(60);

#[tokio::test]
#[ignore = "prints figures for docs/bench, checks nothing; run it by name with --ignored --nocapture"]
async fn figures() -> Result<()> {
    let _lease = LEASE_IN_USE.lock().await;
    let world = World::with_node("figures").await?;
    let scratch = tempfile::tempdir()?;
    let mut operator = start(&world, scratch.path())?;
    let pid = operator.id();
    leads(&world).await?;
    println!("resident memory at the start: {:.1} MiB", mebibytes(pid)?);

    let mut times = Vec::new();
    for number in 0..DEPLOYMENTS {
        times.push(time_to_pod(&world, &format!("mdep-{number}")).await?);
    }
    times.sort();
    println!(
        "apply to pod seen by a watch, {DEPLOYMENTS} times: median {:?}, longest {:?}",
        times[DEPLOYMENTS / 2],
        times[DEPLOYMENTS - 1]
    );

    let playing = tokio::spawn(world.kubelet().play(world.node_name("a")));
    for number in 0..DEPLOYMENTS {
        world.condition(&format!("mdep-{number}"), "Ready", "True", None).await?;
    }
    playing.abort();
    println!("resident memory with {DEPLOYMENTS} served: {:.1} MiB", mebibytes(pid)?);

    let pods: Api<Pod> = world.api();
    let params = PostParams::default();
    let made = stream::iter(0..FOREIGN_PODS).map(|number| {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("foreign-{number}")},
            "spec": {
                "nodeName": world.node_name("a"),
                "containers": [{"name": "a", "image": "a", "resources": {"requests": {"cpu": "1m"}}}]
            }
        });
        let (pods, params) = (&pods, &params);
        async move { anyhow::Ok(pods.create(params, &serde_json::from_value(pod)?).await?) }
    });
    made.buffer_unordered(16).try_for_each(|_| std::future::ready(Ok(()))).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("resident memory with {FOREIGN_PODS} foreign pods: {:.1} MiB", mebibytes(pid)?);
    operator.kill()?;
    operator.wait()?;

    let wire = Wire::default();
    let options = Options { no_leader_election: false, ..world.options() };
    let counted = world.operator_on(wire.clone(), options)?;
    // The killed one's Lease has to end first.
    eventually("the watches of the second operator", || {
        Box::pin(async {
            Ok(wire.calls().iter().any(|call| call.query.contains("watch=true")).then_some(()))
        })
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = wire.calls().len();
    tokio::time::sleep(IDLE).await;
    let calls = wire.calls().split_off(before);
    let leases = calls.iter().filter(|call| call.is_lease()).count();
    println!(
        "calls in {} s of idleness: {leases} for the Lease, {} others",
        IDLE.as_secs(),
        calls.len() - leases
    );
    counted.stop().await
}

/// The binary that lies where this one was built.
fn start(world: &World, scratch: &Path) -> Result<Child> {
    let program = std::env::current_exe()?;
    let folder = program.parent().and_then(|deps| deps.parent()).context("no target folder")?;
    let kubeconfig = ApiServer::shared()?.write_kubeconfig(scratch)?;
    let args =
        ["run", "--namespace", &world.namespace, "--runtime-image", "coterie:test", "--http-port", "0"];
    let args = [&args[..], &["--lease-namespace", OPERATOR_NAMESPACE]].concat();
    let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    let variables = [("KUBECONFIG", kubeconfig.as_path())];
    process::spawn(&folder.join("coterie-operator"), &args, &variables, &scratch.join("log"))
}

async fn leads(world: &World) -> Result<()> {
    eventually("a leader", || {
        Box::pin(async { Ok((!crate::leader::holder(world).await?.is_empty()).then_some(())) })
    })
    .await
}

async fn time_to_pod(world: &World, name: &str) -> Result<Duration> {
    let pods: Api<Pod> = world.api();
    let selector = format!("coterie.dev/model-deployment={name}");
    let mut events = pin!(pods.watch(&WatchParams::default().labels(&selector), "0").await?);
    let start = Instant::now();
    world.apply(&world.deployment(name)).await?;
    while let Some(event) = events.try_next().await? {
        if let WatchEvent::Added(pod) = event {
            assert!(pod.name_any().starts_with(name));
            return Ok(start.elapsed());
        }
    }
    anyhow::bail!("the watch ended")
}

fn mebibytes(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
