//! Whatever numbers ranks report and objects carry, there is a plan and a status.

use super::{map, settled_with};
use crate::observed::{ExpertLoad, LoadGauge, Occupancy, RankReport, TerminationSeen};
use crate::plan::{Action, plan};
use crate::status::{Applied, status};
use coterie_api::deployment::Rebalance;
use coterie_api::expert_map::{ExpertMap, VERSION_LIMIT};
use coterie_api::expert_report::ExpertReport;
use coterie_api::rank_load::RankLoad;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::sync::Arc;

/// Any number, and often one at an edge.
fn number() -> impl Strategy<Value = u64> {
    let edges = [
        0,
        1,
        2,
        VERSION_LIMIT - 1,
        VERSION_LIMIT,
        VERSION_LIMIT + 1,
        i64::MAX as u64,
        u64::MAX - 1,
        u64::MAX,
    ];
    prop_oneof![4 => proptest::sample::select(edges.to_vec()), 1 => any::<u64>()]
}

fn report() -> impl Strategy<Value = RankReport> {
    let troubled = proptest::option::of(Just("trouble".to_owned()));
    (number(), number(), number(), any::<u32>(), troubled).prop_map(
        |(read, loaded, routing, adopted, trouble)| RankReport { read, loaded, routing, adopted, trouble },
    )
}

fn time() -> impl Strategy<Value = Timestamp> {
    let seconds = prop_oneof![Just(i64::MIN), Just(i64::MAX), -5_000_000_000..5_000_000_000_i64];
    seconds.prop_map(|seconds| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_numbers_in_what_is_seen_make_a_plan(
        reports in proptest::collection::vec(report(), 3),
        versions in proptest::collection::vec(number(), 6),
        tokens in proptest::collection::vec(number(), 8),
        requests in proptest::collection::vec(number(), 3),
        times in proptest::collection::vec(time(), 4),
        labels in proptest::collection::vec(any::<u32>(), 2),
        [restarts, failures]: [i32; 2],
        [ranks, redundant] in [1..4_u32, 0..9_u32],
    ) {
        let mut world = settled_with(1, 3);
        world.object.spec.ranks = Some(ranks);
        world.object.spec.experts.redundant = if ranks > 1 { redundant } else { 0 };
        world.object.spec.experts.rebalance = Rebalance::Auto;
        let mut observed = world.observed();
        for (index, pod) in observed.pods.iter_mut().enumerate() {
            observed.reports.insert(pod.uid.clone(), reports[index].clone());
            let at = times[0];
            observed.occupancy.insert(pod.uid.clone(), Occupancy { at, requests: requests[index] });
            pod.told.experts = format!("{}-x", versions[index]);
            (pod.created, pod.restarts) = (Some(times[1]), restarts);
            pod.ready = index != 1 || versions[0] % 2 == 0;
            pod.last_termination =
                Some(TerminationSeen { started: Some(times[2]), finished: Some(times[3]), ..Default::default() });
        }
        observed.pods[2].rank = Some(labels[0]);
        observed.pods[1].cordoned = (labels[1] % 3 == 0).then_some(times[2]);
        observed.pods[0].terminating = (labels[1] % 5 == 0).then_some(times[3]);
        let there = &mut observed.experts[0];
        let annotations = there.object.metadata.annotations.as_mut().unwrap();
        annotations.insert(coterie_api::name::ANNOTATION_APPLIED.to_owned(), format!("{}-x", versions[3]));
        there.map = ExpertMap::even(versions[4], 30, 8, 3).ok();
        there.redundant = usize::try_from(versions[5]).ok();
        if let Some(moved) = &mut there.moved {
            moved.time = times[0];
        }
        let load = ExpertLoad { ended: times[1], version: versions[4], tokens: vec![tokens; 30] };
        observed.loads.insert(0, Arc::new(load));
        if let Some(failure) = &mut observed.status.last_failure {
            failure.count = failures;
        }

        let deployment = world.deployment();
        let plan = plan(&deployment, &observed, world.now);
        let told = status(&deployment, &observed, &plan, &Applied::default(), world.now);
        for replica in told.experts.iter().flat_map(|experts| &experts.replicas) {
            prop_assert!(u64::try_from(replica.version).unwrap() <= VERSION_LIMIT);
        }
        for action in &plan.actions {
            if let Action::ApplyConfigMap(next) = action {
                let text = &next.data.as_ref().unwrap()["map.json"];
                prop_assert!(serde_json::from_str::<ExpertMap>(text).is_ok(), "ranks take it");
            }
        }
    }

    #[test]
    fn any_counts_of_ranks_make_a_load(
        counts in proptest::collection::vec(number(), 12),
        [running, waiting] in [number(), number()],
    ) {
        let mut gauge = LoadGauge::default();
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        gauge.close(at(0), SignedDuration::from_secs(1));
        for (rank, counts) in counts.chunks(2).enumerate() {
            let tokens = vec![counts.to_vec()];
            let report = ExpertReport { rank: rank as u16 % 2, since: counts[0] % 2, tokens, ..Default::default() };
            gauge.take(&report);
        }
        gauge.close(at(2), SignedDuration::from_secs(1));
        let load = RankLoad { running, waiting, ..RankLoad::default() };
        prop_assert!(Occupancy::of(&load, at(0)).requests >= running.max(waiting));
    }
}

#[test]
fn a_world_has_what_these_tests_change() {
    let world = settled_with(1, 3);
    assert_eq!((world.observed().pods.len(), map(&world, 0).ranks()), (3, 3));
}
