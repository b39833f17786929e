//! `/load`: what a rank tells the front door and the operator, in every phase of its life.

use crate::client::Exchange;
use crate::script::{RUNNING, WAITING};
use crate::server::{Server, named, user};
use coterie_api::rank_load::RankLoad;
use coterie_runtime::serve::Ended;
use coterie_runtime::signals::Asked;
use serde_json::{Value, json};
use std::sync::mpsc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

async fn load(server: &Server) -> RankLoad {
    let reply = server.get("/load").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    serde_json::from_str(&reply.body).unwrap()
}

/// Waits for a load that is so; it is told between two steps.
async fn load_where(server: &Server, what: &str, is: impl Fn(&RankLoad) -> bool) -> RankLoad {
    for _ in 0..1000 {
        let load = load(server).await;
        if is(&load) {
            return load;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("never {what}: {:?}", load(server).await);
}

async fn endless(server: &Server) -> Exchange {
    let body: Value = named(user("wait:again:x", json!({"stream": true, "max_tokens": 1500})));
    Exchange::start(server.address, "POST", "/v1/chat/completions", &body.to_string()).await
}

#[tokio::test]
async fn while_the_model_loads_there_is_no_work() {
    let (go, wait) = mpsc::channel::<()>();
    let server =
        Server::start_with(Duration::from_secs(30), move || wait.recv().map_err(|_| unreachable!())).await;
    let loading = load(&server).await;
    assert!(loading.since > 1_700_000_000_000);
    assert_eq!(loading, RankLoad { since: loading.since, ..RankLoad::default() });
    go.send(()).unwrap();
    server.until_ready().await;
    let ready = load(&server).await;
    assert_eq!((ready.since, ready.ready, ready.draining), (loading.since, true, false));
    assert_eq!(ready.max_running, RUNNING as u64);
}

#[tokio::test]
async fn work_is_counted_by_the_engines_thread() {
    let server = Server::start().await;
    let before = load_where(&server, "the self-test is over", |load| load.generated_tokens == 1).await;
    server.complete(json!({"prompt": "wait:say:abc"})).await;
    let after = load_where(&server, "counted", |load| load.generated_tokens == 5).await;
    let prompt = "<wait:say:abc".len() as u64;
    assert_eq!(after.requests, before.requests + 1);
    assert_eq!(after.prompt_tokens, before.prompt_tokens + prompt);
    assert_eq!(after.computed_tokens, before.computed_tokens + prompt);
    assert_eq!(after.steps, before.steps + 4);
    // The script sleeps so long in each of them.
    assert!(after.busy_seconds >= before.busy_seconds + 4.0 * 0.02, "{before:?} {after:?}");
    assert_eq!((after.waiting, after.running, after.waiting_tokens), (0, 0, 0));
}

#[tokio::test]
async fn what_waits_and_what_runs_are_told_apart() {
    let server = Server::start().await;
    let mut streams = Vec::new();
    for _ in 0..RUNNING + WAITING - 1 {
        let mut stream = endless(&server).await;
        stream.read_until("assistant").await;
        streams.push(stream);
    }
    let full = load_where(&server, "full", |load| load.running == RUNNING as u64).await;
    assert_eq!(full.waiting, WAITING as u64 - 1);
    assert!(full.waiting_tokens >= full.waiting * "wait:again:x".len() as u64, "{full:?}");
    assert_eq!(full.kv_usage, 1.0);
    drop(streams);
    load_where(&server, "empty", |load| load.running + load.waiting == 0).await;
}

#[tokio::test]
async fn to_the_end_of_a_drain_probes_are_answered_and_nothing_new_is_taken() {
    let server = Server::start().await;
    let mut running = endless(&server).await;
    running.read_until("\"content\":\"x\"").await;
    // A connection that idles between two requests does not hold the drain up.
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    idle.read_exact(&mut [0; 12]).await.unwrap();

    server.ask(Asked::Drain);
    let refused = loop {
        let reply = server.chat(user("say:late", json!({}))).await;
        if reply.status != 200 {
            break reply;
        }
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("shutting_down")));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.header("connection"), Some("close"));
    assert_eq!(server.get("/v1/models").await.status, 503);
    let large = server.chat(user(&"x".repeat(4 << 20), json!({}))).await;
    assert_eq!(large.status, 503, "the answer comes also where the whole body is not looked at");
    for _ in 0..3 {
        let draining = load(&server).await;
        assert_eq!((draining.ready, draining.draining, draining.running), (false, true, 1));
        assert!(server.metric("coterie_requests_running").await == 1.0);
        assert_eq!((server.get("/health").await.status, server.get("/ready").await.status), (200, 503));
        assert!(!server.has_ended());
    }
    // Who asks for nothing holds nothing up either.
    let silent = TcpStream::connect(server.address).await.unwrap();
    drop(running);
    let address = server.address;
    assert_eq!(server.ended().await, Ok(Ended::Drained));
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
    drop((idle, silent));
}
