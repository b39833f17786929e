//! Requests that wait at the front door.

use crate::client::Exchange;
use crate::door::{FrontDoor, PATIENCE, WAITING, model, named, streamed};
use crate::fake_rank::{FakeRank, Happened, undisturbed};
use coterie_api::rank_load::RankLoad;
use coterie_runtime::route::{LaneLimits, Patience};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn start(door: &FrontDoor, body: &Value) -> Exchange {
    Exchange::start(door.address, "POST", "/v1/completions", &named(body).to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_a_model_without_ranks_waits_for_the_first() {
    let rank = FakeRank::start(&Happened::default()).await;
    let door = FrontDoor::start(PATIENCE, WAITING).await;
    door.serve(&[]);
    let body = streamed("hello");
    let (reply, whole, ()) =
        tokio::join!(door.complete(&body), door.complete(json!({"prompt": "x"})), async {
            door.until("waiting", |load| {
                load.waiting == 2 && load.waiting_tokens > 1 && load.oldest_wait_seconds > 0.0
            })
            .await;
            door.serve(&[&rank]);
        });
    assert_eq!((reply.body, whole.status), (undisturbed(&body), 200));
    let load = door.load().await;
    assert_eq!(
        (&*load.namespace, &*load.name, load.waiting, load.running, load.requests),
        ("chat", "m", 0, 0, 2)
    );
    assert!(load.idle_seconds.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_that_loads_is_waited_for() {
    let rank = FakeRank::start(&Happened::default()).await;
    rank.change(|script| script.load.ready = false);
    let door = FrontDoor::start(PATIENCE, WAITING).await;
    door.serve(&[&rank]);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let (reply, ()) = tokio::join!(door.complete(json!({"prompt": "x"})), async {
        door.until("waiting", |load| load.waiting == 1).await;
        rank.change(|script| script.load.ready = true);
    });
    assert_eq!(reply.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_wait_and_only_for_so_long() {
    let patience = Patience { hold: Duration::from_millis(500), ..PATIENCE };
    let door = FrontDoor::start(patience, LaneLimits { requests: 1, ..WAITING }).await;
    door.serve(&[]);
    let (held, refused) = tokio::join!(door.complete(json!({"prompt": "x"})), async {
        door.until("waiting", |load| load.waiting == 1).await;
        door.complete(json!({"prompt": "x"})).await
    });
    for (reply, code) in [(&held, "model_not_ready"), (&refused, "queue_full")] {
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &json!(code)), "{reply:?}");
        assert!(reply.header("retry-after").is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_waits_is_kept_alive_and_then_answered() {
    let rank = FakeRank::start(&Happened::default()).await;
    let patience = Patience { quiet: Duration::from_millis(50), ..PATIENCE };
    let door = FrontDoor::start(patience, WAITING).await;
    door.serve(&[]);
    let body = streamed("hello");
    let mut client = start(&door, &body).await;
    client.read_until("text/event-stream").await;
    client.read_until(": waiting\n\n").await;
    let mut refused = start(&door, &streamed("refuse me")).await;
    refused.read_until(": waiting\n\n").await;
    door.serve(&[&rank]);
    let rest = client.rest().await;
    assert!(rest.contains("t393") && rest.contains("[DONE]"), "{rest}");
    let rest = refused.rest().await;
    assert!(rest.contains("data: {\"error\":{\"message\":\"no such\""), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_waits_no_longer() {
    let door = FrontDoor::start(PATIENCE, WAITING).await;
    door.serve(&[]);
    let clients = [start(&door, &streamed("x")).await, start(&door, &json!({"prompt": "x"})).await];
    door.until("waiting", |load| load.waiting == 2).await;
    drop(clients);
    door.until("gone", |load| load.waiting == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_deleted_tells_who_waits() {
    let door = FrontDoor::start(PATIENCE, WAITING).await;
    door.serve(&[]);
    let (reply, ()) = tokio::join!(door.complete(json!({"prompt": "x"})), async {
        door.until("waiting", |load| load.waiting == 1).await;
        door.update(vec![model("chat", "other", "other", &[])]);
    });
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_rank_gets_no_more_than_it_can_use() {
    let rank = FakeRank::start(&Happened::default()).await;
    rank.change(|script| {
        script.load = RankLoad { since: 1, ready: true, max_running: 4, ..RankLoad::default() };
        script.pause = Duration::from_millis(20);
    });
    let door = FrontDoor::start(PATIENCE, WAITING).await;
    door.serve(&[&rank]);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let bodies: Vec<Value> = (0..12).map(|number| streamed(&format!("hello {number}"))).collect();
    let all = futures::future::join_all(bodies.iter().map(|body| door.complete(body)));
    let (replies, most) = tokio::join!(all, async {
        let mut most = 0;
        for _ in 0..20 {
            most = most.max(rank.open());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        most
    });
    assert!(replies.iter().zip(&bodies).all(|(reply, body)| reply.body == undisturbed(body)));
    assert!((4..=5).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_waits_is_shared_by_the_ranks_that_come() {
    let happened = Happened::default();
    let ranks = [FakeRank::start(&happened).await, FakeRank::start(&happened).await];
    for rank in &ranks {
        rank.change(|script| {
            script.load = RankLoad { since: 1, ready: true, max_running: 4, ..RankLoad::default() };
            // An answer takes 1.8 s: the first ones run while their number is looked at.
            script.pause = Duration::from_millis(100);
        });
    }
    let door = FrontDoor::start(PATIENCE, WAITING).await;
    door.serve(&[]);
    let bodies: Vec<Value> = (0..60).map(|number| streamed(&format!("hello {number}"))).collect();
    let all = futures::future::join_all(bodies.iter().map(|body| door.complete(body)));
    let watched = async {
        door.until("waiting", |load| load.waiting == 60).await;
        door.serve(&[&ranks[0]]);
        let (found, mut most) = (Instant::now(), [0; 2]);
        while found.elapsed() < Duration::from_secs(1) {
            if found.elapsed() > Duration::from_millis(200) {
                door.serve(&[&ranks[0], &ranks[1]]);
            }
            most = [0, 1].map(|rank| most[rank].max(ranks[rank].open()));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        most
    };
    let (replies, most) = tokio::join!(all, watched);
    assert!(replies.iter().zip(&bodies).all(|(reply, body)| reply.body == undisturbed(body)));
    assert!(most.iter().all(|most| (4..=5).contains(most)), "a batch and a quarter each, not {most:?}");
    assert!(ranks[1].requests() >= 15, "the second had {} of 60", ranks[1].requests());
}
