//! Ranks that break in the middle of an answer: the client must not see it.

use crate::door::{FrontDoor, PATIENCE, WAITING, named, streamed, with_ranks};
use crate::fake_rank::{FakeRank, Happened, length, undisturbed};
use coterie_runtime::route::Patience;
use futures::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;

/// What happens at every byte of an answer.
async fn at_every_byte(what: &str) {
    let (door, ranks) = with_ranks(2).await;
    let bytes = length(&named(&streamed("")));
    let all = (0..bytes).map(|at| {
        let door = &door;
        async move {
            let body = streamed(&format!("{what} at {at}"));
            (at, door.complete(&body).await, undisturbed(&body))
        }
    });
    for (at, reply, expected) in join_all(all).await {
        assert_eq!((reply.status, reply.body), (200, expected), "{what} at {at}");
    }
    let tried: usize = ranks.iter().map(FakeRank::requests).sum();
    assert_eq!(tried, 2 * bytes, "each was begun, and gone on with");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_may_die_at_any_byte() {
    at_every_byte("die").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_may_end_at_any_byte_as_if_it_were_whole() {
    at_every_byte("end").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_that_hangs_is_left() {
    let (door, ranks) = with_ranks(2).await;
    let body = streamed("hang at 150");
    let (hung, meanwhile) = tokio::join!(door.complete(&body), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        door.complete(json!({"prompt": "x"})).await
    });
    assert_eq!(hung.body, undisturbed(&body));
    assert_eq!(meanwhile.status, 200);
    assert_eq!(ranks.iter().filter(|rank| rank.script.lock().unwrap().hangs).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_of_a_living_rank_is_waited_for() {
    let happened = Happened::default();
    let rank = FakeRank::start(&happened).await;
    let patience = Patience { quiet: Duration::from_millis(100), ..PATIENCE };
    let door = FrontDoor::start(patience, WAITING).await;
    door.serve(&[&rank]);
    let body = named(&streamed("pend at 150")).to_string();
    let mut client = crate::client::Exchange::start(door.address, "POST", "/v1/completions", &body).await;
    client.read_until("assistant").await;
    for _ in 0..15 {
        client.read_until(": waiting\n\n").await;
    }
    assert_eq!(rank.requests(), 1, "it was not begun again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_one_piece_is_begun_anew() {
    let (door, _ranks) = with_ranks(2).await;
    let undisturbed = door.complete(json!({"prompt": "x"})).await;
    for at in [0, 5, 60, 100, 120] {
        let reply = door.complete(json!({"prompt": format!("die at {at}")})).await;
        assert_eq!((reply.status, &reply.body), (200, &undisturbed.body), "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_on_which_every_rank_dies_does_not_take_all_of_them() {
    let (door, ranks) = with_ranks(4).await;
    for body in [streamed("die 9 times at 10"), json!({"prompt": "die 9 times at 30"})] {
        let before: usize = ranks.iter().map(FakeRank::requests).sum();
        let reply = door.complete(&body).await;
        assert!(reply.body.contains("rank_lost"), "{reply:?}");
        let tried = ranks.iter().map(FakeRank::requests).sum::<usize>() - before;
        assert!((3..=4).contains(&tried), "{tried}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_is_tried_elsewhere_and_then_told() {
    let (door, ranks) = with_ranks(2).await;
    for prompt in ["garbage", "huge head", "wrong journal"] {
        let reply = door.complete(streamed(prompt)).await;
        assert!(reply.body.contains("rank_lost"), "{prompt}: {reply:?}");
    }
    assert!(ranks.iter().all(|rank| rank.requests() > 0), "all were tried");
    assert_eq!(door.complete(streamed("hello")).await.body, undisturbed(&streamed("hello")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_gone_on_with_fails_in_a_way_that_says_try_again() {
    let (door, _ranks) = with_ranks(2).await;
    let reply = door.complete(streamed("die at 150 no replay")).await;
    let events = reply.events();
    let error: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(
        (reply.status, &error["error"]["code"], &error["error"]["type"]),
        (200, &json!("rank_lost"), &json!("server_error"))
    );
    let said = error["error"]["message"].as_str().unwrap();
    assert!(said.contains("cannot be replayed") && said.contains("Send the request again"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_without_journal_is_passed_on_as_it_is() {
    let (door, ranks) = with_ranks(2).await;
    ranks.iter().for_each(|rank| rank.change(|script| script.journal = false));
    let body = streamed("hello");
    assert_eq!(door.complete(&body).await.body, undisturbed(&body));
    let long = json!({"prompt": "die at 15000", "stream": true, "max_tokens": 900});
    assert!(length(&named(&long)) > 30_000);
    let reply = door.complete(&long).await;
    assert!(reply.body.contains("keeps no journal") && reply.body.contains("rank_lost"), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_ranks_that_are_full_or_leave_are_not_the_clients() {
    let (door, ranks) = with_ranks(2).await;
    for status in [429, 503] {
        ranks.iter().for_each(|rank| rank.change(|script| script.refuses = (2, status)));
        for body in [streamed("hello"), json!({"prompt": "x"})] {
            assert_eq!(door.complete(&body).await.status, 200, "{status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_router_that_dies_takes_only_its_own_clients() {
    let (one, ranks) = with_ranks(1).await;
    let other = FrontDoor::start(PATIENCE, WAITING).await;
    other.serve(&[&ranks[0]]);
    ranks[0].change(|script| script.pause = Duration::from_millis(50));
    let body = streamed("hello");
    let lost = named(&body).to_string();
    let (answer, ()) = tokio::join!(other.complete(&body), async {
        let mut client = crate::client::Exchange::start(one.address, "POST", "/v1/completions", &lost).await;
        client.read_until("assistant").await;
        one.kill();
    });
    assert_eq!(answer.body, undisturbed(&body));
}
