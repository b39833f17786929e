//! Single situations.

use super::stage::{Stage, WORK, at, policy};
use crate::plan::replicas::{Fleet, Scaler, record};
use crate::validate::Scaling;
use coterie_api::deployment::scaling::ScalingStatus;
use coterie_api::front_door::ModelLoad;
use jiff::SignedDuration;
use std::collections::BTreeSet;

#[test]
fn from_zero_the_first_waiting_request_makes_a_replica_at_once() {
    let mut stage = Stage::new(policy(0, 4), 0, 30);
    stage.run(20, 0.0);
    assert_eq!(stage.desired(), 0);
    let decision = stage.second(1.0);
    assert_eq!(decision.desired, 1);
    assert_eq!(decision.why, "1 request waits and there is no replica");
    stage.run(29, 0.0);
    assert_eq!(stage.desired(), 1, "and no second one while it comes");
}

#[test]
fn one_request_from_zero_makes_one_replica_whatever_came_before() {
    let mut stage = Stage::new(policy(0, 20), 8, 20);
    stage.policy.idle = SignedDuration::from_secs(15);
    stage.run(300, 40.0);
    stage.run(60, 0.0);
    assert_eq!((stage.desired(), stage.queue), (0, 0.0));
    let decision = stage.second(1.0);
    assert_eq!((decision.desired, decision.why.as_str()), (1, "1 request waits and there is no replica"));
    stage.run(18, 0.0);
    assert_eq!(stage.desired(), 1, "and no second one while it comes");
}

#[test]
fn one_request_makes_one_replica_however_large_it_is() {
    let mut stage = Stage::new(policy(0, 20), 2, 5);
    stage.run(300, 5.0);
    stage.restart();
    stage.policy.ttft = SignedDuration::from_millis(100);
    stage.scaler.demand.expect(&BTreeSet::new(), &BTreeSet::from(["router".to_owned()]), at(301));
    let load = ModelLoad { waiting: 1, waiting_tokens: 2_000_000, ..ModelLoad::default() };
    stage.scaler.demand.router("router", &load, at(301));
    let decision = stage.scaler.decide(&stage.policy, &Fleet::default(), Some(0), at(301));
    assert!(decision.need.backlog > 2.0, "{:?}", decision.need);
    assert_eq!((decision.desired, decision.why.as_str()), (1, "1 request waits and there is no replica"));
}

#[test]
fn several_replicas_from_zero_say_why() {
    let mut stage = Stage::new(policy(0, 50), 2, 20);
    assert_eq!(stage.desired(), 2);
    stage.policy.idle = SignedDuration::from_secs(15);
    stage.run(100, 5.0);
    stage.run(60, 0.0);
    assert_eq!(stage.desired(), 0);
    let decision = stage.second(1000.0);
    assert!(decision.desired > 1);
    for words in ["1000 requests wait and there is no replica; ", " s of work are left in 20 s"] {
        assert!(decision.why.contains(words), "{words:?} is not in {:?}", decision.why);
    }
    // Of these ranks nothing is known.
    let mut stage = Stage::new(policy(0, 50), 0, 20);
    stage.second(0.0);
    let decision = stage.second(100.0);
    assert_eq!(decision.desired, 4);
    assert_eq!(
        decision.why,
        "100 requests wait and there is no replica; no rank was measured yet, so it is a replica for each 32 that wait"
    );
}

#[test]
fn zero_comes_though_more_would_have_been_needed_than_may_be() {
    let mut stage = Stage::new(policy(0, 1), 1, 30);
    stage.policy.idle = SignedDuration::from_secs(15);
    stage.run(120, 8.0);
    while stage.queue > 0.0 {
        assert!(stage.second < 1000, "{} wait", stage.queue);
        stage.run(1, 0.0);
    }
    stage.run(20, 0.0);
    assert_eq!(stage.desired(), 0, "{:?}", stage.status);
}

#[test]
fn after_an_outage_idle_time_is_watched_anew_and_ends() {
    for (most, ranks_only) in [(1, true), (4, true), (4, false)] {
        let mut stage = Stage::new(policy(0, most), 1, 30);
        stage.policy.idle = SignedDuration::from_secs(15);
        stage.run(200, 6.0);
        stage.run(5, 0.0);
        (stage.ranks_are_silent, stage.outage) = (ranks_only, !ranks_only);
        let before = stage.desired();
        stage.run(38, 0.0);
        assert_eq!(stage.desired(), before, "nothing is taken away blindly");
        (stage.ranks_are_silent, stage.outage) = (false, false);
        stage.run(14, 0.0);
        assert_eq!(stage.desired(), before, "14 of 15 s were watched");
        stage.run(4, 0.0);
        assert_eq!(stage.desired(), 0, "{:?}", stage.status);
    }
}

#[test]
fn zero_comes_after_idle_seconds_without_a_request_and_no_sooner() {
    let mut stage = Stage::new(policy(0, 4), 1, 30);
    stage.run(100, 0.0);
    stage.run(30, 1.0);
    stage.run(590, 0.0);
    assert_eq!(stage.desired(), 1);
    stage.run(20, 0.0);
    assert_eq!(stage.desired(), 0);
    let told = &stage.status.as_ref().unwrap().decisions[0];
    assert_eq!((told.from, told.to, told.why.as_str()), (1, 0, "no request for 600 s"));
}

#[test]
fn with_a_least_of_one_nothing_ever_goes_to_zero() {
    let mut stage = Stage::new(policy(1, 4), 1, 30);
    stage.run(2000, 0.0);
    assert_eq!(stage.desired(), 1);
}

#[test]
fn a_spike_is_decided_upon_within_three_seconds() {
    let mut stage = Stage::new(policy(1, 50), 2, 60);
    stage.run(400, 5.0);
    let before = stage.desired();
    stage.run(3, 60.0);
    // Measured since it came: with what was before, three seconds of twelve times as much look like a little more.
    assert!(stage.desired() > 4 * before, "{} after {before}", stage.desired());
}

#[test]
fn a_little_more_than_chance_explains_is_no_spike() {
    let mut stage = Stage::new(policy(1, 50), 2, 60);
    stage.run(400, 5.0);
    let before = stage.desired();
    stage.run(3, 10.0);
    assert_eq!(stage.desired(), before);
}

#[test]
fn a_backlog_that_is_gone_before_a_replica_comes_makes_none() {
    let mut stage = Stage::new(policy(1, 50), 6, 120);
    stage.run(400, 10.0);
    let before = stage.desired();
    // 10 s of work for each of the replicas at once: they are through long before 120 s.
    stage.second(60.0 * 6.0);
    assert!(stage.desired() <= before + 1, "{} after {before}", stage.desired());
}

#[test]
fn a_burst_that_one_replica_drains_before_another_could_come_makes_none() {
    // 280 requests are 43 s of work, which take one replica 54 s; another takes 60 s to come.
    let burst = |mut stage: Stage| {
        stage.second(280.0);
        let mut most = 0;
        while stage.queue >= 1.0 {
            most = stage.second(0.0).desired.max(most);
        }
        most
    };
    let mut measured = Stage::new(policy(1, 50), 1, 60);
    measured.run(400, 0.5);
    assert_eq!(burst(measured), 1);
    // The first requests of all: their rank is measured before others are made.
    let mut fresh = Stage::new(policy(1, 50), 1, 60);
    fresh.run(2, 0.0);
    assert_eq!(burst(fresh), 1);
}

#[test]
fn a_burst_that_one_replica_cannot_drain_in_time_makes_others() {
    let mut stage = Stage::new(policy(1, 50), 1, 60);
    stage.run(400, 0.5);
    let decision = stage.second(2000.0);
    assert!((3..=12).contains(&decision.desired), "310 s of work, {}", decision.why);
}

#[test]
fn replicas_on_their_way_count() {
    let mut stage = Stage::new(policy(1, 50), 2, 60);
    stage.run(400, 8.0);
    stage.run(59, 40.0);
    // 40 requests of 0.155 s need 6.2 s of work each second, and what has waited for a minute.
    let while_waiting = stage.desired();
    assert!((10..=26).contains(&while_waiting), "{while_waiting}");
    stage.run(240, 40.0);
    assert!(stage.queue < 1.0, "{}", stage.queue);
    assert!(stage.desired() <= while_waiting + 2, "{} after {while_waiting}", stage.desired());
}

#[test]
fn replicas_go_after_a_quiet_window_and_not_before() {
    let mut stage = Stage::new(policy(1, 50), 12, 30);
    stage.run(700, 40.0);
    stage.run(290, 5.0);
    // Room for growth goes sooner; what 40 requests a second take, with a tenth more, stays.
    let least = (40.0 * WORK * 1.1 / 0.8).ceil() as usize;
    assert!(stage.desired() >= least, "{} after {least}", stage.desired());
    stage.run(800, 5.0);
    assert!((1..=3).contains(&stage.desired()), "{}", stage.desired());
}

#[test]
fn what_is_soon_there_again_goes_sooner() {
    for (cold_start, window) in [(5, 60), (30, 120), (120, 300)] {
        let mut stage = Stage::new(Scaling { quiet: None, ..policy(1, 50) }, 12, cold_start);
        stage.run(2000, 40.0);
        stage.restart();
        let busy = stage.desired();
        stage.run(window - 1, 1.0);
        assert_eq!(stage.desired(), busy, "{cold_start}");
        stage.run(20, 1.0);
        assert!(stage.desired() < busy, "{cold_start}");
    }
}

#[test]
fn an_operator_that_begins_anew_watches_a_quiet_window_before_anything_goes() {
    let mut stage = Stage::new(policy(1, 50), 12, 30);
    stage.run(700, 40.0);
    stage.restart();
    let busy = stage.desired();
    stage.run(299, 1.0);
    assert_eq!(stage.desired(), busy);
    stage.run(20, 1.0);
    assert!(stage.desired() < busy);
}

#[test]
fn what_was_measured_outlives_the_operator() {
    let mut stage = Stage::new(policy(1, 50), 4, 30);
    stage.run(300, 10.0);
    let kept = stage.status.clone().unwrap().measured.unwrap();
    // All requests are alike, so what their prompts and their answers take cannot be told apart; the sum can.
    let prompt = kept.prompt_tokens as f64 / kept.prefill_tokens_per_second as f64;
    let answer = kept.output_tokens as f64 * kept.token_microseconds as f64 * 1e-6;
    assert!((prompt + answer - WORK).abs() < 0.1 * WORK, "{kept:?}");
    assert!(kept.step_microseconds.abs_diff(10_000) < 1000, "{kept:?}");
    assert_eq!(kept.start_seconds, Some(30));
    stage.restart();
    let decision = stage.second(10.0);
    assert!(decision.signals.measured.is_some_and(|measured| measured.rates.prompt > 0.0));
    assert_eq!(decision.signals.start, Some(30.0));
}

#[test]
fn a_change_of_the_bounds_counts_at_once() {
    let mut stage = Stage::new(policy(1, 50), 6, 30);
    stage.run(400, 20.0);
    stage.policy.most = 2;
    let decision = stage.second(20.0);
    assert_eq!(decision.desired, 2);
    assert!(decision.why.ends_with("; maxReplicas is 2"), "{}", decision.why);
    (stage.policy.least, stage.policy.most) = (9, 50);
    assert_eq!(stage.second(20.0).desired, 9);
}

#[test]
fn a_new_deployment_begins_with_one_replica_even_if_none_is_asked_for() {
    let mut scaler = Scaler::new(None, at(0));
    let decision = scaler.decide(&policy(0, 4), &Fleet::default(), None, at(0));
    assert_eq!(decision.desired, 1);
    assert!(decision.why.starts_with("the first replica of a new ModelDeployment"), "{}", decision.why);
    let decision = scaler.decide(&policy(0, 4), &Fleet::default(), Some(1), at(1));
    assert_eq!(decision.why, "0 requests wait, and no rank was measured yet");
}

#[test]
fn a_target_says_how_many_may_wait() {
    // 16 requests wait for one replica that nothing is known of.
    let ask = |target| {
        let mut scaler = Scaler::new(None, at(0));
        scaler.demand.expect(&BTreeSet::new(), &BTreeSet::from(["router".to_owned()]), at(0));
        let load = ModelLoad { waiting: 16, waiting_tokens: 16_000, ..ModelLoad::default() };
        scaler.demand.router("router", &load, at(0));
        let mut policy = policy(0, 10);
        policy.queue_target = target;
        scaler.decide(&policy, &Fleet { width: 1, ready: 1, starting: Vec::new() }, Some(1), at(0)).desired
    };
    assert_eq!((ask(None), ask(Some(8)), ask(Some(4))), (1, 2, 4));
}

#[test]
fn the_status_is_written_for_decisions_and_else_seldom() {
    let mut stage = Stage::new(policy(1, 50), 4, 30);
    stage.run(400, 10.0);
    let mut writes = 0;
    for second in 0..100_u32 {
        let before = stage.status.clone();
        stage.second(f64::from(8 + second % 5));
        writes += usize::from(stage.status != before);
    }
    assert!(writes <= 10, "{writes}");
    // Nothing changes, so nothing is written.
    stage.run(1000, 0.0);
    let before = stage.status.clone();
    stage.run(100, 0.0);
    assert_eq!(stage.status, before);
}

#[test]
fn the_last_ten_decisions_are_kept_newest_first() {
    let mut stage = Stage::new(policy(1, 50), 1, 30);
    for least in 1..=12 {
        stage.policy.least = least;
        stage.second(0.0);
    }
    let ScalingStatus { decisions, desired, .. } = stage.status.unwrap();
    assert_eq!((decisions.len(), desired), (10, 12));
    assert_eq!((decisions[0].from, decisions[0].to), (11, 12));
    assert!(decisions.windows(2).all(|pair| pair[0].time >= pair[1].time && pair[0].from == pair[1].to));
}

#[test]
fn a_status_of_numbers_that_are_none_is_read() {
    let mut stage = Stage::new(policy(1, 50), 2, 30);
    stage.run(100, 5.0);
    let measured = stage.status.as_mut().unwrap().measured.as_mut().unwrap();
    measured.prefill_tokens_per_second = -5;
    measured.step_microseconds = i64::MAX;
    measured.max_running = 0;
    measured.start_seconds = Some(-3);
    stage.restart();
    let decision = stage.second(5.0);
    assert!((1..=50).contains(&decision.desired));
    let _ = record(stage.status.as_ref(), &decision, 2, at(0));
}
