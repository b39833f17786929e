//! What holds for any traffic.

use super::stage::{Stage, WORK, policy};
use crate::validate::Scaling;
use proptest::prelude::*;

/// A stretch of traffic: seconds, requests a second, and whether nobody can be asked.
fn stretch() -> impl Strategy<Value = (i64, f64, bool)> {
    let rate = prop_oneof![2 => Just(0.0), 3 => 0.0..20.0_f64, 2 => 20.0..150.0_f64];
    (1..200_i64, rate, prop::bool::weighted(0.15))
}

/// A replica that is Ready after a second leaves growth no time, and the load is a hair's breadth from the edge of 20 replicas.
#[test]
fn constant_load_at_an_edge_settles_where_replicas_come_at_once() -> Result<(), TestCaseError> {
    settles(92.98975821322112, 30, 1)
}

/// No replica comes and goes at a load that stays.
fn settles(rate: f64, ready: usize, cold_start: i64) -> Result<(), TestCaseError> {
    let mut stage = Stage::new(Scaling { quiet: None, ..policy(1, 100) }, ready, cold_start);
    // Longer than bursts are remembered: while there are many replicas, their whole requests come in bursts.
    stage.run(3000, rate);
    let settled = stage.desired();
    let (mut more, mut fewer) = (0, 0);
    for _ in 0..1500 {
        let before = stage.desired();
        stage.second(rate);
        more += usize::from(stage.desired() > before);
        fewer += usize::from(stage.desired() < before);
    }
    // One that was not needed may go late. None comes back.
    prop_assert!(more == 0 && fewer <= 1, "+{more} -{fewer} around {settled} at {rate} requests a second");
    // Enough, and not twice as many as that: one replica does 0.8 s of work a second.
    let fewest = rate * WORK / 0.8;
    prop_assert!((fewest..=fewest * 2.2 + 1.0).contains(&(settled as f64)), "{settled} for {fewest:.1}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bounds_hold_outages_take_nothing_away_and_zero_waits_for_idle(
        least in 0..3_usize,
        more in 1..30_usize,
        ready in 0..5_usize,
        cold_start in 1..180_i64,
        stretches in prop::collection::vec(stretch(), 1..12),
        restart in prop::option::of(0..12_usize),
    ) {
        let most = least + more;
        let mut stage = Stage::new(policy(least, most), ready.clamp(least, most), cold_start);
        let mut quiet_for = 0_i64;
        let mut unseen_for = 0_i64;
        for (number, (seconds, rate, outage)) in stretches.into_iter().enumerate() {
            if restart == Some(number) {
                stage.restart();
            }
            stage.outage = outage;
            for _ in 0..seconds {
                let before = stage.desired();
                let decision = stage.second(rate);
                let after = decision.desired;
                quiet_for = if rate > 0.0 || stage.queue > 0.0 { 0 } else { quiet_for + 1 };
                unseen_for = if outage { unseen_for + 1 } else { 0 };
                prop_assert!((least..=most).contains(&after), "{after} is not in {least}..={most}");
                // An answer is fresh for six seconds.
                prop_assert!(unseen_for <= 7 || after >= before, "{before} -> {after} while nobody answers");
                prop_assert!(after > 0 || before == 0 || quiet_for >= 600, "zero after {quiet_for} s");
                prop_assert!(
                    before > 0 || stage.queue < 1.0 || outage || after > 0,
                    "{} wait and nothing is made", stage.queue
                );
                prop_assert!(!decision.why.is_empty() && !decision.why.contains("NaN"), "{}", decision.why);
            }
        }
    }

    #[test]
    fn constant_load_settles(rate in 0.5..100.0_f64, ready in 1..40_usize, cold_start in 1..180_i64) {
        settles(rate, ready, cold_start)?;
    }

    #[test]
    fn a_backlog_never_starves(rate in 0.0..60.0_f64, burst in 1.0..3000.0_f64, cold_start in 1..180_i64) {
        let mut stage = Stage::new(policy(0, 100), 0, cold_start);
        stage.second(burst);
        stage.run(cold_start * 6 + 900, rate);
        prop_assert!(stage.queue <= 1.0 + rate, "{} still wait at {} replicas", stage.queue, stage.desired());
    }
}
