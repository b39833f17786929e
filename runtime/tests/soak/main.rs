//! A rank among clients that do as they please, for a while: nothing may be left behind.
//!
//! Ordinary tests run it for 20 s; `cargo xtask soak --minutes 10` for as long as it says. What a client does follows
//! from the seed; when, and so in what company, does not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test ends at the first surprise

#[path = "../http/client.rs"]
#[allow(dead_code)]
mod client;
mod clients;
#[path = "../process/folder.rs"]
#[allow(dead_code)]
mod folder;
#[path = "../http/model.rs"]
#[allow(dead_code)]
mod model;
mod random;
#[path = "../process/rank.rs"]
#[allow(dead_code)]
mod rank;
mod samples;
#[path = "../../engine/tests/tiny_mixtral/mod.rs"]
mod tiny_mixtral;

use clients::{Tally, client};
use rank::Process;
use samples::{Sample, Samples};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;

const CLIENTS: u64 = 32;
/// Fewer than there are clients, so that some are refused; and a cache that is too small for all that run.
const ARGS: &[&str] = &["--max-running", "12", "--max-waiting", "12", "--drain-seconds", "30"];
/// Time to come to rest when the last client is gone.
const REST: Duration = Duration::from_secs(30);
/// Memory may differ by a twentieth and so much: pages that one sample finds touched and another does not.
const RSS_NOISE: f64 = 4e6;

#[tokio::test]
async fn random_clients_leave_nothing_behind() {
    let from_env = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seconds = from_env("COTERIE_SOAK_SECONDS").unwrap_or(20);
    let seed = from_env("COTERIE_SOAK_SEED").unwrap_or(1);

    // Some layers more than in other tests, so that answers last long enough for clients to meet.
    let model = json!({"max_position_embeddings": 2048, "num_hidden_layers": 24, "intermediate_size": 200});
    let mut process = Process::start_on(folder::changed(&model), ARGS).await;
    let before = Sample::take(&process).await;
    let tally = Arc::new(Tally::default());
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(process.address, seed * CLIENTS + number, end, tally.clone()));
    }
    let mut samples = Samples::default();
    while Instant::now() < end {
        samples.push(Sample::take(&process).await);
        sleep(Duration::from_secs(seconds) / 60).await;
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client saw what must not be");
    }

    let after = at_rest(&process, &before).await;
    println!("{seconds} s, seed {seed}, {CLIENTS} clients\n{tally}\n{samples}\nat rest: {after}");
    let (middle, last) = samples.rss_by_thirds();
    assert!(last < middle * 1.05 + RSS_NOISE, "memory grows: {middle} bytes, then {last}\n{samples}");
    assert!(samples.most_running() > 3.0, "the clients hardly met\n{samples}");
    tally.assert_everything_was_done();
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
}

/// Waits until nothing runs, waits or is held; as many files are open as `before`.
async fn at_rest(process: &Process, before: &Sample) -> Sample {
    let started = Instant::now();
    loop {
        let now = Sample::take(process).await;
        if (now.running, now.waiting, now.kv_usage) == (0.0, 0.0, 0.0) && now.files <= before.files {
            return now;
        }
        assert!(started.elapsed() < REST, "something is left: {now}; before: {before}");
        sleep(Duration::from_millis(50)).await;
    }
}
