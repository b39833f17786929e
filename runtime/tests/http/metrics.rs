//! What a scraper gets.

use crate::client::exchange_with;
use crate::server::{Server, user};
use serde_json::json;

#[tokio::test]
async fn the_text_form_is_the_one_that_was_asked_for() {
    let server = Server::start().await;
    let plain = server.get("/metrics").await;
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(plain.body.contains("\n# TYPE vllm:generation_tokens_total counter\n"), "{}", plain.body);
    assert!(!plain.body.contains("# EOF"), "{}", plain.body);

    let accept = "accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2";
    let open = exchange_with(server.address, "GET", "/metrics", accept, "").await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.header("content-type"), Some(kind));
    assert!(open.body.contains("\n# TYPE vllm:generation_tokens counter\n"), "{}", open.body);
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
}

#[tokio::test]
async fn the_only_rank_of_a_replica_has_nothing_to_tell_of_experts() {
    let server = Server::start().await;
    let reply = server.get("/experts").await;
    assert_eq!((reply.status, reply.body.as_str()), (404, "no exchange with other ranks is open\n"));
}

#[tokio::test]
async fn every_answer_is_observed_once_however_it_ends() {
    let server = Server::start().await;
    let labels = "model_name=\"scripted\",engine=\"0\"";
    let by_reason =
        |reason: &str| format!("vllm:request_success_total{{{labels},finished_reason=\"{reason}\"}}");
    let lengths = format!("vllm:request_generation_tokens_sum{{{labels}}}");

    server.chat(user("say:abc", json!({}))).await; // a, b, c and the stop token
    server.chat(user("say:abcdef", json!({"max_tokens": 2}))).await;
    server.chat(user("say:abcdef", json!({"stop": "c"}))).await;
    server.chat(user("say:x", json!({"n": 2}))).await; // twice x and the stop token
    server.chat(user("fail:", json!({}))).await;

    server.counts(&by_reason("stop"), 4.0).await;
    server.counts(&by_reason("length"), 1.0).await;
    server.counts(&by_reason("error"), 1.0).await;
    server.counts(&lengths, 4.0 + 2.0 + 3.0 + 2.0 * 2.0).await;
    for name in
        ["request_time_seconds", "prefill_time_seconds", "decode_time_seconds", "request_prompt_tokens"]
    {
        server.counts(&format!("coterie_{name}_count"), 5.0).await;
    }
    // The first token that the process generated was for nobody.
    server.counts("coterie_queue_time_seconds_count", 6.0).await;
    server.counts("coterie_time_to_first_token_seconds_count", 6.0).await;
    server
        .agree(&[
            "coterie_step_time_seconds_count",
            "coterie_step_tokens_count",
            "coterie_step_requests_count",
        ])
        .await;
}
