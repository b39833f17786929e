//! Experts that move, and ranks that are added and taken away, while requests run.

use crate::replica::{Replica, choice, map, oracle};

#[tokio::test]
async fn experts_move_under_load_and_nothing_shows() {
    let expected = oracle(30, &[]).await;
    let mut replica = Replica::start(&map(1, &[&[0, 1], &[2, 3]]), &[]).await;
    replica.until_routed_by(1).await;
    let maps = [map(2, &[&[2, 3], &[0, 1]]), map(3, &[&[0, 3], &[1, 2, 3]]), map(4, &[&[0, 1, 2, 3], &[0]])];
    for map in &maps {
        replica.write(map);
        let replica = &replica;
        let load = |rank| async move {
            let mut replies = Vec::new();
            for number in 0..30 {
                replies.push(replica.ask(rank, number).await);
            }
            replies
        };
        let (zero, one, ()) = tokio::join!(load(0), load(1), replica.until_routed_by(map.version()));
        for replies in [zero, one] {
            assert_eq!(replies.iter().map(choice).collect::<Vec<_>>(), expected);
        }
    }
    // What the last map does not give to a rank is let go.
    let slots = u32::try_from(maps[2].slots_of(1)).unwrap();
    replica.until(1, "let go of what moved", |report| report.held == slots).await;
    let counted = replica.report(0).await.tokens;
    assert!(counted.iter().all(|layer| layer.iter().sum::<u64>() > 0), "{counted:?}");
}

#[tokio::test]
async fn a_replica_becomes_wider_and_narrower_without_a_restart() {
    let expected = oracle(12, &[]).await;
    let mut replica = Replica::start(&map(1, &[&[0, 1], &[2, 3]]), &[]).await;
    let since = [replica.report(0).await.since, replica.report(1).await.since];

    replica.write(&map(2, &[&[0], &[2], &[1, 3]]));
    replica.run(2);
    replica.all_ready().await;
    replica.until_routed_by(2).await;
    replica.agrees_with(&expected).await;

    replica.write(&map(3, &[&[0, 1], &[2, 3]]));
    for rank in [0, 1] {
        replica.until(rank, "routed by version 3", |report| report.routing_version == 3).await;
    }
    replica.kill(2);
    replica.agrees_with(&expected).await;
    assert_eq!([replica.report(0).await.since, replica.report(1).await.since], since);
    assert_eq!(replica.report(0).await.adopted, 0, "nothing was lost");
}

#[tokio::test]
async fn a_bad_map_is_told_and_the_old_one_is_kept() {
    let expected = oracle(2, &[]).await;
    let mut replica = Replica::start(&map(1, &[&[0, 1], &[2, 3]]), &[]).await;
    for bad in [
        "",
        "{",
        r#"{"version":2,"experts":4,"layers":[[[0]]]}"#,
        r#"{"version":9,"experts":8,"layers":[[[0,1,2,3,4,5,6,7],[]]]}"#,
    ] {
        replica.put("map.json", bad);
        replica.until(0, "told of a bad map", |report| report.trouble.is_some()).await;
        replica.agrees_with(&expected).await;
    }
    replica.write(&map(3, &[&[2, 3], &[0, 1]]));
    replica.until_routed_by(3).await;
    replica.until(0, "forgot the bad map", |report| report.trouble.is_none()).await;
    replica.agrees_with(&expected).await;
}
