//! Loading, readiness, draining, dying.

use crate::client::Exchange;
use crate::server::{Server, named, user};
use coterie_api::launch::{Termination, TerminationReason};
use coterie_runtime::serve::Ended;
use coterie_runtime::signals::Asked;
use serde_json::json;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn until_the_model_is_loaded_it_says_that_it_loads() {
    let (go, wait) = mpsc::channel::<()>();
    let server = Server::start_with(LONG, move || wait.recv().map_err(|_| unreachable!())).await;
    assert_eq!(server.get("/health").await.status, 200);
    let ready = server.get("/ready").await;
    assert_eq!(ready.status, 503);
    let chat = server.chat(user("say:x", json!({}))).await;
    assert_eq!((chat.status, &chat.json()["error"]["code"]), (503, &json!("model_not_ready")));
    assert!(chat.header("retry-after").is_some());
    assert_eq!(server.get("/v1/models").await.status, 503);
    for _ in 0..100 {
        if server.get("/ready").await.body.contains("50 %") {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.get("/ready").await.body, "the model is being loaded: 50 % of its weights\n");
    server.counts("coterie_weights_loaded_ratio", 0.5).await;

    go.send(()).unwrap();
    server.until_ready().await;
    // Ready means that a token was generated.
    assert_eq!(server.seen.lock().unwrap().requests.len(), 1);
    server.counts("coterie_generation_tokens_total", 1.0).await;
    assert_eq!(server.get("/v1/models").await.json()["data"][0]["id"], "scripted");
}

#[tokio::test]
async fn a_model_that_does_not_load_ends_the_process_with_its_reason() {
    let why =
        Termination { reason: TerminationReason::ModelRejected, message: "the weights are cut off".into() };
    let refused = why.clone();
    let server = Server::start_with(LONG, move || Err(refused)).await;
    assert_eq!(server.ended().await, Err(why));

    let server = Server::start_with(LONG, || panic!("a bug in loading")).await;
    let why = server.ended().await.unwrap_err();
    assert_eq!(why.reason, TerminationReason::Failed);
    assert!(why.message.contains("a bug in loading"), "{}", why.message);
}

#[tokio::test]
async fn asked_to_end_while_loading_it_ends() {
    let (go, wait) = mpsc::channel::<()>();
    let server = Server::start_with(LONG, move || wait.recv().map_err(|_| unreachable!())).await;
    server.ask(Asked::Drain);
    assert_eq!(server.ended().await, Ok(Ended::Drained));
    drop(go);
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_takes_what_still_comes() {
    let server = Server::start().await;
    let text = "a long answer that takes a while";
    let body = named(user(&format!("wait:say:{text}"), json!({"stream": true})));
    let mut running =
        Exchange::start(server.address, "POST", "/v1/chat/completions", &body.to_string()).await;
    running.read_until("\"content\":\"l\"").await;

    server.ask(Asked::Drain);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(server.get("/ready").await.status, 503);
    assert_eq!(server.get("/health").await.status, 200);
    let late = server.chat(user("say:late", json!({}))).await;
    assert_eq!((late.status, late.header("connection")), (200, Some("close")));
    server.ask(Asked::Drain);

    let address = server.address;
    let rest = running.rest().await;
    assert!(rest.contains("\"content\":\"w\"") && rest.contains("[DONE]"), "{rest}");
    assert_eq!(server.ended().await, Ok(Ended::Drained));
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_drain_without_requests_lasts_as_long_as_new_ones_may_come() {
    let server = Server::start().await;
    // A connection that is kept open without a request does not hold it up.
    let _idle = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let started = Instant::now();
    server.ask(Asked::Drain);
    assert_eq!(server.ended().await, Ok(Ended::Drained));
    assert!((Duration::from_millis(250)..Duration::from_secs(3)).contains(&started.elapsed()));
}

#[tokio::test]
async fn at_the_deadline_streams_are_cut_with_an_error() {
    let server = Server::start_with(Duration::from_millis(600), || Ok(())).await;
    server.until_ready().await;
    let body = named(user("wait:again:x", json!({"stream": true, "max_tokens": 1900})));
    let mut running =
        Exchange::start(server.address, "POST", "/v1/chat/completions", &body.to_string()).await;
    running.read_until("\"content\":\"x\"").await;
    server.ask(Asked::Drain);
    let rest = running.rest().await;
    assert!(rest.contains("\"code\":\"shutting_down\""), "{rest}");
    assert!(!rest.contains("[DONE]"));
    let why = server.ended().await.unwrap_err();
    assert_eq!(why.reason, TerminationReason::Failed);
    assert!(why.message.starts_with("1 requests were not finished"), "{}", why.message);
}

#[tokio::test]
async fn told_twice_it_does_not_wait() {
    let server = Server::start().await;
    let body = named(user("wait:again:x", json!({"stream": true, "max_tokens": 1900})));
    let mut running =
        Exchange::start(server.address, "POST", "/v1/chat/completions", &body.to_string()).await;
    running.read_until("\"content\":\"x\"").await;
    server.ask(Asked::Drain);
    sleep(Duration::from_millis(50)).await;
    assert!(!server.has_ended());
    server.ask(Asked::EndNow);
    assert_eq!(server.ended().await, Ok(Ended::Interrupted));
}

#[tokio::test]
async fn an_engine_that_dies_takes_its_streams_and_the_process_along() {
    let server = Server::start().await;
    let body = named(user("wait:again:x", json!({"stream": true, "max_tokens": 1900})));
    let mut running =
        Exchange::start(server.address, "POST", "/v1/chat/completions", &body.to_string()).await;
    running.read_until("\"content\":\"x\"").await;
    let reply = server.chat(user("panic:", json!({}))).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &json!("engine_died")));
    assert!(running.rest().await.contains("engine_died"));

    assert_eq!(server.get("/health").await.status, 503);
    assert_eq!(server.get("/ready").await.status, 503);
    let late = server.chat(user("say:x", json!({}))).await;
    assert_eq!((late.status, &late.json()["error"]["code"]), (503, &json!("engine_died")));
    let why = server.ended().await.unwrap_err();
    assert_eq!(why.reason, TerminationReason::Failed);
    assert!(why.message.contains("the script says so"), "{}", why.message);
}
