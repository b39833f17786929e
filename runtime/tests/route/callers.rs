//! API keys, their limits, and what each caller gets of a rank that all want.

use crate::client::{Reply, exchange_with};
use crate::door::{FrontDoor, PATIENCE, WAITING, named, streamed};
use crate::fake_rank::{FakeRank, Happened};
use coterie_api::rank_load::RankLoad;
use coterie_runtime::route::{Allowance, Door, KeyRule, Keys};
use coterie_runtime::server::Limits;
use serde_json::{Value, json};
use std::time::Duration;

/// SHA-256 of `one` and of `two`.
const ONE: &str = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
const TWO: &str = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3";

fn rule(name: &str, hash: &str, allowance: Allowance) -> KeyRule {
    let byte = |at: usize| u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).unwrap();
    KeyRule { name: name.into(), hash: std::array::from_fn(byte), allowance }
}

async fn with_keys(one: Allowance, two: Allowance) -> (FrontDoor, FakeRank) {
    let keys = Keys::only(vec![rule("a", ONE, one), rule("b", TWO, two)]);
    let rank = FakeRank::start(&Happened::default()).await;
    let door = FrontDoor::of(Door::new(PATIENCE, Limits::default(), WAITING, 1 << 28, keys)).await;
    door.serve(&[&rank]);
    (door, rank)
}

async fn ask(door: &FrontDoor, key: &str, body: Value) -> Reply {
    let header = format!("authorization: Bearer {key}");
    exchange_with(door.address, "POST", "/v1/completions", &header, &named(&body).to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_nothing_is_told() {
    let (door, rank) = with_keys(Allowance::default(), Allowance::default()).await;
    for reply in [
        door.complete(json!({"prompt": "x"})).await,
        ask(&door, "three", json!({"prompt": "x"})).await,
        door.get("/v1/models").await,
        door.get("/v1/models/m").await,
    ] {
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (401, &json!("invalid_api_key")),
            "{reply:?}"
        );
    }
    assert_eq!(rank.requests(), 0);
    assert_eq!(ask(&door, "two", json!({"prompt": "x"})).await.status, 200);
    let head = rank.seen.lock().unwrap().requests[0].0.to_lowercase();
    assert!(!head.contains("authorization"), "the key stays here: {head}");
    assert_eq!(door.get("/ready").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_at_its_limit_is_told_when_to_come_again() {
    let allowance = Allowance { tokens_per_minute: Some(10), ..Allowance::default() };
    let (door, _rank) = with_keys(allowance, Allowance::default()).await;
    // The rank says that the prompt has 3 tokens.
    let body = json!({"prompt": "x", "max_tokens": 40});
    assert_eq!(ask(&door, "one", body.clone()).await.status, 200);
    let reply = ask(&door, "one", body.clone()).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (429, &json!("rate_limit_exceeded")));
    let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((197..=204).contains(&seconds), "34 tokens at 10 a minute, not {seconds} s");
    assert_eq!(ask(&door, "two", body).await.status, 200, "others are not affected");
    let metrics = crate::client::exchange(door.reports, "GET", "/metrics", "").await.body;
    for line in [
        "coterie_router_refusals_total{code=\"rate_limit_exceeded\"} 1",
        "coterie_router_requests_total{namespace=\"chat\",model=\"m\",key=\"a\",outcome=\"answered\"} 1",
        "coterie_router_generation_tokens_total{namespace=\"chat\",model=\"m\",key=\"b\"} 40",
        "coterie_router_ranks{namespace=\"chat\",model=\"m\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_counts_as_the_answer_tells_also_in_a_stream() {
    let allowance = Allowance { tokens_per_minute: Some(1000), ..Allowance::default() };
    let (door, _rank) = with_keys(allowance, Allowance::default()).await;
    // Estimated as 900 tokens each, of which 3 and the answer's 4 stay.
    let prompt = "x".repeat(3600);
    for stream in [false, true, false] {
        let body = json!({"prompt": prompt, "stream": stream, "max_tokens": 4});
        assert_eq!(ask(&door, "one", body).await.status, 200, "streamed: {stream}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_caller_does_not_hold_up_another() {
    let (door, rank) = with_keys(Allowance::default(), Allowance::default()).await;
    rank.change(|script| {
        script.load = RankLoad { since: 1, ready: true, max_running: 1, ..RankLoad::default() };
        script.pause = Duration::from_millis(5);
    });
    tokio::time::sleep(Duration::from_millis(600)).await;
    let flood = futures::future::join_all((0..30).map(|_| ask(&door, "one", streamed("flood"))));
    let quiet = async {
        door.until("flooded", |load| load.waiting > 20).await;
        let before = rank.requests();
        assert_eq!(ask(&door, "two", streamed("quiet")).await.status, 200);
        let seen = rank.seen.lock().unwrap();
        let at = seen.requests.iter().position(|(_, body)| body["prompt"] == "quiet").unwrap();
        assert!(at <= before + 4, "{at} requests came first, of which {before} were there before");
    };
    let (flood, ()) = tokio::join!(flood, quiet);
    assert!(flood.iter().all(|reply| reply.status == 200));
}
