//! The front door before ranks with the real engine, of which one is killed.

use crate::client::{Reply, exchange};
use crate::folder::{coterie, whole};
use crate::journalled::Journalled;
use crate::rank::{Process, address_in};
use crate::replay::{PATH, bodies, said};
use coterie_api::front_door::FrontDoorLoad;
use coterie_api::rank_load::RankLoad;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::sleep;

/// Tokens that a rank has generated when it is killed.
const SOME: u64 = 100;

struct Router {
    address: SocketAddr,
    reports: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn router(ranks: [&Process; 2]) -> Router {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ranks.json");
    let ranks = ranks.map(|rank| rank.address.to_string());
    std::fs::write(&file, json!({"models": [{"name": "tiny", "ranks": ranks}]}).to_string()).unwrap();
    let ports = ["--port", "0", "--metrics-port", "0"];
    let mut child = coterie(&["--log-format", "json", "route", "--host", "127.0.0.1"])
        .args(ports)
        .arg("--ranks-file")
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let open = lines.find(|line| address_in(line).is_some()).expect("it says where it listens");
    let open: Value = serde_json::from_str(&open).unwrap();
    let [address, reports] = ["address", "metrics"].map(|port| open[port].as_str().unwrap().parse().unwrap());
    std::thread::spawn(move || lines.for_each(drop));
    let router = Router { address, reports, child, _folder: folder };
    for _ in 0..6000 {
        if exchange(address, "GET", "/ready", "").await.status == 200 {
            return router;
        }
        sleep(Duration::from_millis(1)).await;
    }
    panic!("never ready");
}

async fn load(rank: &Process) -> RankLoad {
    serde_json::from_value(exchange(rank.address, "GET", "/load", "").await.json()).unwrap()
}

fn salted(body: &Value, salt: &str) -> String {
    let mut body = body.clone();
    body["cache_salt"] = salt.into();
    body["max_tokens"] = 300.into();
    body.to_string()
}

/// Asks again and again, until one answer after the rank was killed.
async fn ask(router: SocketAddr, client: usize, body: &Value, killed: &AtomicBool) -> Vec<Reply> {
    let mut answers = Vec::new();
    for round in 0.. {
        let last = killed.load(Ordering::Relaxed);
        answers.push(exchange(router, "POST", PATH, &salted(body, &format!("{client} {round}"))).await);
        if last {
            break;
        }
    }
    answers
}

/// Waits until a rank is answering, and has generated so many tokens.
async fn until_it_has(rank: &Process, tokens: u64) {
    for _ in 0..6000 {
        let load = load(rank).await;
        if load.running > 0 && load.generated_tokens > tokens {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
    panic!("the rank got nothing to do: {:?}", load(rank).await);
}

/// Whether some of the router's requests are not with `other`, and stay so: the two are not asked at once.
async fn requests_are_elsewhere(router: &Router, other: &Process) -> bool {
    let mut seen = 0;
    for _ in 0..200 {
        let with_other = load(other).await;
        let all: FrontDoorLoad =
            serde_json::from_value(exchange(router.reports, "GET", "/load", "").await.json()).unwrap();
        let elsewhere = all.models[0].running > with_other.running + with_other.waiting + 1;
        seen = if elsewhere { seen + 1 } else { 0 };
        if seen == 20 {
            return true;
        }
        sleep(Duration::from_millis(1)).await;
    }
    false
}

#[tokio::test]
async fn clients_do_not_see_that_a_rank_is_killed() {
    let model = whole();
    let mut first = Process::of(model.path(), &["--threads", "1"]).await;
    let second = Process::of(model.path(), &["--threads", "1"]).await;
    let router = router([&first, &second]).await;
    let before = load(&first).await.generated_tokens;
    let killed = AtomicBool::new(false);
    let bodies: Vec<Value> = bodies().into_iter().cycle().take(8).collect();
    let clients = bodies.iter().enumerate().map(|(client, body)| ask(router.address, client, body, &killed));
    let (answers, ()) = tokio::join!(futures::future::join_all(clients), async {
        loop {
            until_it_has(&first, before + SOME).await;
            // So that what it is answering is not over before it is killed.
            first.signal("STOP");
            if requests_are_elsewhere(&router, &second).await {
                break;
            }
            first.signal("CONT");
        }
        first.signal("KILL");
        killed.store(true, Ordering::Relaxed);
    });
    first.ended().await;
    let metrics = exchange(router.reports, "GET", "/metrics", "").await.body;
    let count = |name: &str| -> u64 {
        let line = format!("coterie_router_{name}_total{{namespace=\"default\",model=\"tiny\"}} ");
        metrics
            .lines()
            .find_map(|metric| metric.strip_prefix(&line))
            .map_or(0, |count| count.parse().unwrap())
    };
    assert!(count("streams_continued") + count("retries") > 0, "nothing was cut: {metrics}");

    for (client, (body, answers)) in bodies.iter().zip(answers).enumerate() {
        let choices = body["n"].as_u64().unwrap_or(1) as usize;
        let undisturbed =
            exchange(second.address, "POST", PATH, &salted(body, &format!("alone {client}"))).await;
        let expected = Journalled::read(&undisturbed.body).tail;
        for answer in answers {
            assert!(answer.body.ends_with("data: [DONE]\n\n"), "{body}: {answer:?}");
            let got = Journalled::read(&answer.body).tail;
            assert_eq!(said(&got, choices), said(&expected, choices), "{body}");
            assert_eq!(got.last(), expected.last());
        }
    }
}
