//! What passes through an undisturbed front door, and what it says itself.

use crate::client::{Exchange, exchange_with};
use crate::door::{FrontDoor, PATIENCE, WAITING, model, streamed, with_ranks};
use crate::fake_rank::{FakeRank, Happened, lines, undisturbed};
use coterie_runtime::serve::Ended;
use coterie_runtime::signals::Asked;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_back_as_the_rank_gave_them() {
    let (door, ranks) = with_ranks(1).await;
    let body = streamed("hello");
    let reply = door.complete(&body).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream; charset=utf-8")));
    assert_eq!(reply.body, undisturbed(&body), "without the journal");
    assert_eq!(reply.header("coterie-journal"), None);
    let reply = door.complete(json!({"prompt": "hello", "max_tokens": 2})).await;
    assert_eq!((reply.status, &reply.json()["text"]), (200, &json!("t393 t400 ")));
    let reply = door.complete(json!({"prompt": "refuse me"})).await;
    assert_eq!((reply.status, &reply.json()["error"]["message"]), (400, &json!("no such")));
    let reply = door.complete(streamed("refuse me")).await;
    assert_eq!((reply.status, &reply.json()["error"]["message"]), (400, &json!("no such")));
    assert_eq!(ranks[0].requests(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_get_their_own_name_of_the_model_and_the_clients_headers() {
    let happened = Happened::default();
    let (one, other) = (FakeRank::start(&happened).await, FakeRank::start(&happened).await);
    let door = FrontDoor::start(PATIENCE, WAITING).await;
    door.update(vec![model("a", "smol", "Org/Smol", &[&one]), model("b", "smol", "Org/Smol", &[&other])]);
    let body = r#"{"model": "b/smol", "prompt": "x"}"#;
    let header = "traceparent: 00-1-2-01\r\nauthorization: Bearer secret";
    let reply = exchange_with(door.address, "POST", "/v1/chat/completions", header, body).await;
    assert_eq!(reply.status, 200);
    assert_eq!(one.requests(), 0);
    let (head, body) = other.seen.lock().unwrap().requests[0].clone();
    assert_eq!(body, json!({"model": "Org/Smol", "prompt": "x"}));
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{head}");
    let lines = lines(&head);
    assert!(lines.contains("traceparent: 00-1-2-01") && !head.contains("secret"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_mean_nothing_or_too_much_are_told_apart() {
    let door = FrontDoor::start(PATIENCE, WAITING).await;
    let reply = door.complete(json!({"prompt": "x"})).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &json!("starting")));
    assert_eq!(door.get("/ready").await.status, 503);
    door.update(vec![
        model("a", "x", "smol", &[]),
        model("b", "y", "smol", &[]),
        model("b", "z", "other", &[]),
    ]);
    assert_eq!(door.get("/ready").await.status, 200);
    let reply = door.complete(json!({"model": "smol"})).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("model_ambiguous")));
    assert!(reply.body.contains("'a/x' and 'b/y'"), "{}", reply.body);
    let reply = door.complete(json!({"model": "nothing"})).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("model_not_found")));
    let listed = door.get("/v1/models").await.json();
    let names: Vec<_> = listed["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(names, ["a/x", "b/y", "other"]);
    assert_eq!(door.get("/v1/models/a/x").await.status, 200);
    assert_eq!(door.get("/v1/models/smol").await.status, 400);
    assert_eq!(door.get("/v1/embeddings").await.status, 404);
    assert_eq!(door.get("/v1/completions").await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_anothers_requests_by_a_served_name() {
    let happened = Happened::default();
    let (owner, thief) = (FakeRank::start(&happened).await, FakeRank::start(&happened).await);
    let door = FrontDoor::start(PATIENCE, WAITING).await;
    let stranger = || model("a", "thief", "nc6b/zero", &[&thief]);
    door.update(vec![stranger(), model("nc6b", "zero", "zero", &[&owner])]);
    assert_eq!(door.complete(json!({"model": "nc6b/zero", "prompt": "x"})).await.status, 200);
    assert_eq!((owner.requests(), thief.requests()), (1, 0));
    let listed = door.get("/v1/models").await.json();
    assert_eq!((&listed["data"][0]["id"], &listed["data"][1]["id"]), (&json!("a/thief"), &json!("zero")));
    door.update(vec![stranger(), model("nc6b", "other", "other", &[&owner])]);
    assert_eq!(door.complete(json!({"model": "nc6b/zero", "prompt": "x"})).await.status, 404);
    assert_eq!(door.complete(json!({"model": "a/thief", "prompt": "x"})).await.status, 200);
    assert_eq!(thief.seen.lock().unwrap().requests[0].1["model"], "nc6b/zero", "its ranks go by it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_as_old_at_every_router() {
    for door in [FrontDoor::start(PATIENCE, WAITING).await, FrontDoor::start(PATIENCE, WAITING).await] {
        door.update(vec![coterie_runtime::route::Model {
            made: Some(1_700_000_000),
            ttft: None,
            ..model("a", "m", "m", &[])
        }]);
        assert_eq!(door.get("/v1/models").await.json()["data"][0]["created"], 1_700_000_000);
        assert_eq!(door.get("/v1/models/a/m").await.json()["created"], 1_700_000_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_cannot_be_are_refused_here() {
    let (door, ranks) = with_ranks(1).await;
    let post = |body: &'static str| crate::client::exchange(door.address, "POST", "/v1/completions", body);
    for (body, said) in [
        ("{", "not valid JSON"),
        ("[1]", "must be a JSON object"),
        ("{}", "Missing required parameter: 'model'."),
        (r#"{"model": "m", "coterie_replay": {}}"#, "Unknown parameter: 'coterie_replay'."),
    ] {
        let reply = post(body).await;
        assert!(reply.status == 400 && reply.body.contains(said), "{body}: {reply:?}");
    }
    assert_eq!(ranks[0].requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_its_request_at_the_rank() {
    let (door, ranks) = with_ranks(1).await;
    ranks[0].change(|script| script.pause = Duration::from_secs(3600));
    let body = crate::door::named(&streamed("hello")).to_string();
    let mut client = Exchange::start(door.address, "POST", "/v1/completions", &body).await;
    let other = json!({"model": "m", "prompt": "pend at 30"}).to_string();
    let waiting = Exchange::start(door.address, "POST", "/v1/completions", &other).await;
    door.until("running", |load| load.running == 2).await;
    client.read_until("200 OK").await;
    drop((client, waiting));
    door.until("gone", |load| load.running == 0).await;
    for _ in 0..500 {
        if ranks[0].open() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the rank still answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_what_runs() {
    let (door, ranks) = with_ranks(1).await;
    ranks[0].change(|script| script.pause = Duration::from_millis(100));
    let body = streamed("hello");
    let named = crate::door::named(&body).to_string();
    let mut client = Exchange::start(door.address, "POST", "/v1/completions", &named).await;
    client.read_until("assistant").await;
    door.ask(Asked::Drain);
    assert_eq!(door.ended().await, Ok(Ended::Drained));
    assert!(client.rest().await.contains("[DONE]"));
}
