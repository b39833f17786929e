//! A day's traffic in ten minutes: the scaler follows it, and meanwhile two rollouts go over the replicas, ranks and the
//! operator are killed, and a router leaves. No request fails, no stream breaks.

use crate::front_door::{asked, front_door, routers};
use crate::{READY, talking_model};
use anyhow::{Context, Result, ensure};
use coterie_e2e::chat::{ask, stream};
use coterie_e2e::namespace::Namespace;
use coterie_e2e::operator;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use std::f64::consts::TAU;
use std::time::{Duration, Instant};
use tokio::time::{sleep, sleep_until};

const DAY: Duration = Duration::from_secs(600);
/// Requests a second over the whole day, and how far morning and evening are from it.
const MEAN: f64 = 0.7;
const SWING: f64 = 0.8;
/// Twice a day so many come at once.
const BURST: usize = 12;

/// What happens, and when, as a share of the day.
#[derive(Clone, Copy, Debug)]
enum Accident {
    RankKilled,
    Restart,
    OperatorKilled,
    OtherContext,
    RouterLeaves,
}

const ACCIDENTS: [(f64, Accident); 7] = [
    (0.15, Accident::RankKilled),
    (0.27, Accident::Restart),
    (0.29, Accident::OperatorKilled),
    (0.45, Accident::RankKilled),
    (0.58, Accident::OtherContext),
    (0.75, Accident::RankKilled),
    (0.85, Accident::RouterLeaves),
];

/// Seconds from the day's begin at which requests come: more and fewer with the hour, and two bursts.
fn arrivals() -> Vec<f64> {
    const STEP: f64 = 0.05;
    let day = DAY.as_secs_f64();
    let (mut due, mut all) = (0.0, Vec::new());
    for step in 0..(day / STEP) as usize {
        let at = step as f64 * STEP;
        due += STEP * MEAN * (1.0 - SWING * (TAU * at / day).cos());
        if due >= 1.0 {
            due -= 1.0;
            all.push(at);
        }
    }
    for burst in [0.38, 0.67] {
        all.extend([burst * day; BURST]);
    }
    all
}

#[tokio::test]
#[ignore = "takes ten minutes; cargo xtask test --long"]
async fn a_day_with_rollouts_and_accidents_fails_nobody() -> Result<()> {
    let namespace = Namespace::create("e2e-day").await?;
    let mut spec = talking_model(1);
    spec["scaling"] = json!({"minReplicas": 1, "maxReplicas": 3, "quietSeconds": 60});
    namespace.apply("chat", spec).await?;
    namespace.condition("chat", "Ready", "True", READY).await?;
    let door = front_door(&namespace).await?;

    let (http, begun) = (reqwest::Client::new(), Instant::now());
    let clients = arrivals().into_iter().enumerate().map(|(number, at)| {
        let tokens = 4 + number as u32 * 7 % 20;
        let body = asked(&namespace, &format!("Tell me something about the number {number}."), tokens);
        let (http, door) = (http.clone(), door.clone());
        tokio::spawn(async move {
            sleep_until((begun + Duration::from_secs_f64(at)).into()).await;
            let sent = Instant::now();
            let answer = match number % 3 {
                0 => ask(&http, &door, &body).await,
                _ => stream(&http, &door, &body, |_| ()).await,
            };
            answer.map(|_| sent.elapsed()).map_err(|error| format!("request {number}, {at:.1} s: {error:#}"))
        })
    });
    let clients: Vec<_> = clients.collect();
    for (at, accident) in ACCIDENTS {
        sleep_until((begun + DAY.mul_f64(at)).into()).await;
        let status = namespace.deployments().get("chat").await?.data["status"].clone();
        println!("{:.0} s: {accident:?}, {} replicas", DAY.as_secs_f64() * at, status["replicas"]);
        happen(&namespace, accident).await?;
    }
    let (mut took, mut failures) = (Vec::new(), Vec::new());
    for answer in join_all(clients).await {
        match answer? {
            Ok(elapsed) => took.push(elapsed),
            Err(failure) => failures.push(failure),
        }
    }
    took.sort();
    let quantile = |q: f64| took.get((took.len() as f64 * q) as usize).copied().unwrap_or_default();
    println!(
        "{} answers, {} failures; until the last token p50 {:.1?}, p99 {:.1?}",
        took.len(),
        failures.len(),
        quantile(0.5),
        quantile(0.99)
    );
    let scaling = namespace.deployments().get("chat").await?.data["status"]["scaling"].clone();
    for decision in scaling["decisions"].as_array().context("no decisions")? {
        println!("{}: {} to {}, {}", decision["time"], decision["from"], decision["to"], decision["why"]);
    }
    ensure!(failures.is_empty(), "{failures:#?}");
    namespace.delete().await
}

async fn happen(namespace: &Namespace, accident: Accident) -> Result<()> {
    match accident {
        Accident::RankKilled => {
            let ranks = namespace.ranks("chat").await?;
            let ready = ranks.iter().find(|pod| coterie_e2e::namespace::is_ready(pod));
            let rank = ready.or(ranks.first()).context("no rank to kill")?.name_any();
            namespace.pods().delete(&rank, &DeleteParams::default().grace_period(0)).await?;
        }
        Accident::Restart => {
            let restart = json!({"metadata": {"annotations": {"coterie.dev/restart": "day"}}});
            namespace.patch("chat", restart).await?;
        }
        Accident::OtherContext => {
            namespace.patch("chat", json!({"spec": {"model": {"contextLength": 768}}})).await?;
        }
        Accident::OperatorKilled => operator::kill(&namespace.client).await?,
        // It drains: what a client streams through a router that is killed cannot be saved by the others.
        Accident::RouterLeaves => {
            let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), operator::NAMESPACE);
            let router = routers(namespace).await?.first().context("no router")?.name_any();
            pods.delete(&router, &DeleteParams::default()).await?;
        }
    }
    sleep(Duration::from_millis(100)).await;
    Ok(())
}
