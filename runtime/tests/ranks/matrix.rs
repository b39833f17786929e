//! Every step of the protocol × every accident on the way from one rank to another: every token is that of a single
//! process, and in the end the rank is used again.
//!
//! All 56 cases take minutes; they run where `COTERIE_LONG` is set (`cargo xtask test --long`). Without, every step and
//! every accident has its turn, but not with each other.

use crate::replica::{Replica, choice, map, oracle};
use crate::wire::{ACCIDENTS, Accident, STEPS, Step, Wire};
use coterie_api::expert_report::PeerState;
use serde_json::Value;
use std::time::Duration;
use tokio::time::sleep;

/// How often a case is tried again whose frame did not come by.
const TRIES: usize = 3;
/// Longer than a silent peer is believed to live.
const UNTIL_REPAIRED: Duration = Duration::from_millis(1200);

#[tokio::test]
async fn every_accident_at_every_step_leaves_every_token_right() {
    let expected = oracle(4, &[]).await;
    let all = std::env::var_os("COTERIE_LONG").is_some();
    let mut count = 0;
    for (row, step) in STEPS.into_iter().enumerate() {
        for (column, accident) in ACCIDENTS.into_iter().enumerate() {
            if all || row % ACCIDENTS.len() == column {
                count += 1;
                let mut tries = 0..TRIES;
                while !case(step, accident, &expected).await {
                    assert!(tries.next().is_some(), "{step:?} {accident:?}: no such frame came by");
                    println!("no such frame came by; once more");
                }
            }
        }
    }
    println!("{count} cases of {}", STEPS.len() * ACCIDENTS.len());
}

/// Says whether the accident has happened. On a machine that stands still for as long as a peer may be silent, ranks lose each
/// other by themselves, and then what is to have the accident may never be sent; the tokens are right then, too.
async fn case(step: Step, accident: Accident, expected: &[Value]) -> bool {
    println!("{step:?} {accident:?}");
    // Rank 0 asks rank 1 for expert 2, and nobody but rank 2 has expert 3; lost, it is rank 1's to take over.
    let mut replica = Replica::new(&map(1, &[&[0, 1], &[1, 2, 0], &[2, 3]]), &[]);
    let wire = Wire::to(([127, 0, 0, 1], replica.exchange_port(1)).into(), step, accident).await;
    replica.detour(0, 1, wire.address);
    if matches!(step, Step::Hello | Step::Welcome) {
        wire.arm();
    }
    (0..3).for_each(|rank| replica.run(rank));
    replica.all_ready().await;
    if matches!(step, Step::AdoptingParcel | Step::AdoptingAnswer) {
        replica.until_seen(0, 1, PeerState::Alive).await;
        replica.kill(2);
    }
    if !matches!(step, Step::Hello | Step::Welcome) {
        replica.until_seen(0, 1, PeerState::Alive).await;
        wire.arm();
    }
    let asked = |rank| {
        let replica = &replica;
        async move {
            let mut choices = Vec::new();
            for number in 0..expected.len() as u64 {
                choices.push(choice(&replica.ask(rank, number).await));
            }
            choices
        }
    };
    let (zero, one, ()) = tokio::join!(asked(0), asked(1), async {
        sleep(UNTIL_REPAIRED).await;
        wire.repair();
    });
    assert_eq!(zero, expected, "{step:?} {accident:?}: rank 0");
    assert_eq!(one, expected, "{step:?} {accident:?}: rank 1");
    replica.until_seen(0, 1, PeerState::Alive).await;
    assert_eq!(asked(0).await, expected, "{step:?} {accident:?}: rank 0, once all is well");
    wire.has_happened()
}
