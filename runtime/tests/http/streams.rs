//! A client that goes away, a client that does not read, a request that fails.

use crate::client::Exchange;
use crate::server::{Server, eventually, named, user};
use serde_json::{Value, json};

async fn start(server: &Server, body: Value) -> Exchange {
    Exchange::start(server.address, "POST", "/v1/chat/completions", &named(body).to_string()).await
}

#[tokio::test]
async fn a_client_that_goes_away_stops_the_work() {
    let server = Server::start().await;
    for stream in [true, false] {
        let before = server.seen.lock().unwrap().cancelled.len();
        let steps = server.seen.lock().unwrap().steps;
        let mut exchange = start(&server, user("wait:again:x", json!({"stream": stream}))).await;
        if stream {
            exchange.read_until("\"content\":\"x\"").await;
        } else {
            eventually("it is running", || server.seen.lock().unwrap().steps > steps + 2).await;
        }
        drop(exchange);
        eventually("it is cancelled", || server.seen.lock().unwrap().cancelled.len() == before + 1).await;
    }
    let steps = server.seen.lock().unwrap().steps;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(server.seen.lock().unwrap().steps, steps, "the engine sleeps when nobody asks");
    server.counts("coterie_requests_total{outcome=\"cancelled\"}", 2.0).await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_delays_nobody() {
    let server = Server::start().await;
    let stuck = start(&server, user("again:xyz", json!({"stream": true, "max_tokens": 1900}))).await;
    let reply = server.chat(user("say:quick", json!({}))).await;
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "quick");
    // What it did not read is all there when it does.
    let late = stuck.rest().await;
    assert_eq!(late.matches("\"content\":\"x\"").count(), 634);
    assert!(late.contains("[DONE]"));
}

#[tokio::test]
async fn a_request_that_fails_says_so_and_others_go_on() {
    let server = Server::start().await;
    let other = start(&server, user("wait:say:I go on", json!({"stream": true}))).await;
    let reply = server.chat(user("fail:", json!({}))).await;
    assert_eq!(reply.status, 500);
    let error = &reply.json()["error"];
    assert_eq!(error["type"], "server_error");
    assert!(error["message"].as_str().unwrap().contains("is not a number"), "{error}");

    let streamed = server.chat(user("fail:", json!({"stream": true}))).await;
    assert_eq!(streamed.status, 200);
    let last: Value = serde_json::from_str(streamed.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "request_failed");
    assert!(other.rest().await.contains("[DONE]"));
    server.counts("coterie_requests_total{outcome=\"failed\"}", 2.0).await;
}

#[tokio::test]
async fn tokens_and_times_are_counted() {
    let server = Server::start().await;
    let [prompts, generated, firsts, gaps] = [
        "coterie_prompt_tokens_total",
        "coterie_generation_tokens_total",
        "coterie_time_to_first_token_seconds_count",
        "coterie_inter_token_latency_seconds_count",
    ];
    server.counts(generated, 1.0).await; // that of the self-test
    let before = (server.metric(prompts).await, server.metric(generated).await, server.metric(firsts).await);
    server.complete(json!({"prompt": "say:abc"})).await;
    server.counts(prompts, before.0 + 8.0).await;
    server.counts(generated, before.1 + 4.0).await;
    server.counts(firsts, before.2 + 1.0).await;
    server.counts(gaps, 3.0).await;
    server.counts("coterie_weights_loaded_ratio", 1.0).await;
    server.counts("coterie_kv_cache_usage_ratio", 0.0).await;
}
