//! Ranks that die, hang and come back.

use crate::replica::{LAYERS, Replica, choice, map, oracle};
use coterie_api::expert_report::PeerState;
use std::time::{Duration, Instant};
use tokio::time::sleep;

#[tokio::test]
async fn every_rank_answers_as_a_single_process_does() {
    for activations in ["bf16", "int8"] {
        let flags = ["--activations", activations];
        let expected = oracle(8, &flags).await;
        for layer in [&[&[0, 1][..], &[2, 3]][..], &[&[0, 1, 3], &[1, 2], &[]]] {
            Replica::start(&map(1, layer), &flags).await.agrees_with(&expected).await;
        }
    }
}

#[tokio::test]
async fn a_killed_rank_costs_its_own_requests_only() {
    let expected = oracle(24, &[]).await;
    // Expert 3 is on rank 2 alone: somebody must take it over.
    let mut replica = Replica::start(&map(1, &[&[0, 1], &[1, 2, 0], &[2, 3]]), &[]).await;
    let asked = |rank, numbers: std::ops::Range<u64>| {
        let replica = &replica;
        async move {
            let mut replies = Vec::new();
            for number in numbers {
                replies.push(replica.ask(rank, number).await);
            }
            replies
        }
    };
    let before = asked(0, 0..2).await;
    assert_eq!(before.iter().map(choice).collect::<Vec<_>>(), expected[..2]);
    let (first, second, ()) = tokio::join!(asked(0, 0..24), asked(1, 0..24), async {
        sleep(Duration::from_millis(150)).await;
        replica.signal(2, "KILL");
    });
    for replies in [first, second] {
        assert_eq!(replies.iter().map(choice).collect::<Vec<_>>(), expected);
    }
    replica.kill(2);
    replica.until_seen(0, 2, PeerState::Left).await;
    replica.agrees_with(&expected[..6]).await;
    let adopted: u32 = {
        let (zero, one) = (replica.report(0).await, replica.report(1).await);
        zero.adopted + one.adopted
    };
    assert!(adopted > 0, "expert 3 was taken over");

    // It comes back; nobody was restarted.
    replica.run(2);
    replica.all_ready().await;
    replica.until_seen(0, 2, PeerState::Alive).await;
    replica.until_seen(1, 2, PeerState::Alive).await;
    replica.agrees_with(&expected[..6]).await;
    // Half a minute after the holder is back, what was taken over is let go.
    for rank in [0, 1] {
        replica.until(rank, "let go of what it took over", |report| report.adopted == 0).await;
    }
    replica.agrees_with(&expected[..6]).await;
}

#[tokio::test]
async fn a_stopped_rank_is_left_out_and_taken_back() {
    let expected = oracle(6, &[]).await;
    let replica = Replica::start(&map(1, &[&[0, 1, 2, 3], &[0, 2], &[1, 3]]), &[]).await;
    replica.until_seen(1, 2, PeerState::Alive).await;
    replica.agrees_with(&expected).await;
    replica.signal(2, "STOP");
    for number in 0..6 {
        assert_eq!(choice(&replica.ask(1, number).await), expected[number as usize]);
    }
    replica.until_seen(1, 2, PeerState::Left).await;
    replica.signal(2, "CONT");
    replica.until_seen(1, 2, PeerState::Alive).await;
    replica.until_seen(2, 1, PeerState::Alive).await;
    replica.agrees_with(&expected).await;
}

#[tokio::test]
async fn several_ranks_answer_like_one_whatever_happens_to_another() {
    let expected = &oracle(1, &[]).await[0];
    // Experts 0 and 3 are on one rank only.
    let replica = Replica::start(&map(1, &[&[0, 1], &[1, 2], &[2, 3]]), &[]).await;
    for rank in 0..3 {
        assert_eq!(&choice(&replica.ask(rank, 0).await), expected);
        let report = replica.report(rank).await;
        assert_eq!((report.rank, report.held, report.adopted), (rank as u16, 4, 0));
        assert!(report.tokens.iter().flatten().sum::<u64>() > 0);
    }

    // Stopped, it is left out; going on, it is used again.
    replica.signal(1, "STOP");
    assert_eq!(&choice(&replica.ask(0, 0).await), expected);
    replica.until_seen(0, 1, PeerState::Left).await;
    assert_eq!(&choice(&replica.ask(2, 0).await), expected);
    replica.signal(1, "CONT");
    replica.until_seen(0, 1, PeerState::Alive).await;
    assert_eq!(&choice(&replica.ask(1, 0).await), expected);

    // Killed, its lost experts are taken over.
    let began = Instant::now();
    replica.signal(2, "KILL");
    assert_eq!(&choice(&replica.ask(0, 0).await), expected);
    println!("an answer of 24 tokens after a kill took {:?}", began.elapsed());
    replica.until_seen(0, 2, PeerState::Left).await;
    assert_eq!(&choice(&replica.ask(1, 0).await), expected);
    let adopted = replica.report(0).await.adopted + replica.report(1).await.adopted;
    assert!(
        (1..=2 * LAYERS as u32).contains(&adopted),
        "expert 3 of each layer that asked for it: {adopted}"
    );
}

#[tokio::test]
async fn the_last_rank_serves_alone() {
    let expected = oracle(4, &[]).await;
    let mut replica = Replica::start(&map(1, &[&[0, 1], &[2], &[3]]), &[]).await;
    replica.kill(1);
    replica.kill(2);
    let start = Instant::now();
    replica.agrees_with(&expected).await;
    eprintln!("four answers {:?} after two of three ranks were killed", start.elapsed());
    let report = replica.report(0).await;
    assert_eq!((report.held, report.adopted), (8, 4));
}

#[tokio::test]
async fn a_drain_lets_other_ranks_use_its_experts_to_the_end() {
    let expected = oracle(3, &[]).await;
    let mut replica = Replica::start(&map(1, &[&[0, 1], &[2, 3]]), &[]).await;
    replica.signal(1, "TERM");
    for number in 0..3 {
        assert_eq!(choice(&replica.ask(0, number).await), expected[number as usize]);
    }
    replica.kill(1);
    assert_eq!(choice(&replica.ask(0, 0).await), expected[0]);
}
