//! Replicas of several ranks: exact sequences. What holds in every state is checked in the rollout's invariants.

mod numbers;

use crate::objects::experts_name;
use crate::observed::{ExpertLoad, Observed, ObservedCertificates, ObservedPod};
use crate::plan::rollout::Step;
use crate::plan::{Action, Plan};
use crate::world::{World, settled_with};
use coterie_api::condition::{READY, ROLLED_OUT, SERVING};
use coterie_api::deployment::Rebalance;
use coterie_api::deployment::status::{MoveOutcome, ReplicaExpertsStatus};
use coterie_api::expert_map::{ExpertMap, VERSION_LIMIT};
use coterie_api::launch::Quantization;
use coterie_api::peers::Peers;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::sync::Arc;

fn none(_: &World, _: &Plan) {}

fn map(world: &World, replica: u32) -> ExpertMap {
    let observed = world.observed();
    let there = observed.experts.iter().find(|there| there.replica == replica).expect("a ConfigMap");
    there.map.clone().expect("a map")
}

fn peers(world: &World, replica: u32) -> Vec<u16> {
    let name = Some(experts_name("smol", replica));
    let there = world.config_maps.iter().find(|there| there.metadata.name == name).unwrap();
    let peers: Peers = serde_json::from_str(&there.data.as_ref().unwrap()["peers.json"]).unwrap();
    peers.iter().map(|peer| peer.rank).collect()
}

fn told(world: &World) -> ReplicaExpertsStatus {
    world.object.status.as_ref().unwrap().experts.as_ref().unwrap().replicas[0].clone()
}

fn follow(world: &mut World, pod: &str) {
    let index = world.index(pod);
    assert!(world.follow_map(index), "{pod} goes by the newest map already");
}

#[test]
fn a_replica_of_two_is_made_with_its_map_and_certificates_before_its_ranks() {
    let mut world = World::new(1);
    world.object.spec.ranks = Some(2);
    world.quiesce(none);
    world.end_inspection(0);
    let plan = world.plan();
    let objects: Vec<String> = plan.actions.iter().map(|action| action.object()).collect();
    assert_eq!(objects, ["Secret smol-exchange-tls", "ConfigMap smol-0-experts"]);
    assert_eq!(plan.rollout.step, Step::Create);
    world.log.clear();
    world.settle(none);
    assert!(world.done().starts_with("-smol-inspect"));
    let pods: Vec<ObservedPod> = world.pods.iter().map(ObservedPod::from).collect();
    let names: Vec<(&str, Option<u32>)> = pods.iter().map(|pod| (pod.name.as_str(), pod.rank)).collect();
    assert_eq!(names, [("smol-0-0", Some(0)), ("smol-0-1", Some(1))]);
    let map = map(&world, 0);
    assert_eq!((map.version(), map.ranks(), map.layers(), map.experts()), (1, 2, 30, 8));
    let args = world.pods[1].spec.as_ref().unwrap().containers[0].args.clone().unwrap().join(" ");
    assert!(args.ends_with(
        "--rank 1 --expert-map /etc/coterie/experts/map.json --peers /etc/coterie/experts/peers.json \
         --exchange-port 8081 --exchange-tls /etc/coterie/exchange-tls --activations bf16"
    ));
    let status = world.object.status.clone().unwrap();
    assert_eq!((status.replicas, status.ready_replicas, status.ranks), (1, 1, Some(2)));
    assert_eq!(world.condition(READY).0, "True");
    assert!(world.condition(ROLLED_OUT).2.starts_with("1 replica runs revision"));
    let told = told(&world);
    assert_eq!((told.version, told.loaded, told.routing, told.lost, told.last_move), (1, 2, 2, 0, None));
}

#[test]
fn a_replica_is_ready_when_all_its_ranks_are_and_serves_with_one() {
    let mut world = settled_with(2, 2);
    world.set_ready(world.index("smol-1-0"), false);
    world.quiesce(none);
    assert_eq!(world.object.status.as_ref().unwrap().ready_of_desired.as_deref(), Some("1/2"));
    assert_eq!(world.condition(SERVING).2, "3 ranks answer at http://smol.chat.svc");
    assert_eq!(world.done(), "");
}

#[test]
fn a_lost_rank_comes_back_in_its_place_and_meanwhile_its_experts_are_lost() {
    let mut world = settled_with(1, 2);
    world.log.clear();
    world.remove(world.index("smol-0-1"));
    world.quiesce(none);
    assert_eq!(told(&world).lost, 30 * 4);
    assert_eq!(world.log, ["+smol-0-1", "!Progressing", "!ExpertsLost"]);
    world.settle(none);
    assert_eq!((told(&world).lost, map(&world, 0).version()), (0, 1), "the map is what it was");
}

#[test]
fn with_a_copy_of_each_no_expert_is_lost_with_a_rank() {
    let mut world = settled_with(1, 2);
    world.object.spec.experts.redundant = 8;
    world.settle(none);
    assert_eq!((told(&world).copies, map(&world, 0).version()), (30 * 8, 2));
    assert_eq!(told(&world).last_move.unwrap().why, "experts.redundant is 8 now");
    world.remove(world.index("smol-0-1"));
    world.quiesce(none);
    assert_eq!(told(&world).lost, 0);
}

#[test]
fn nothing_is_lost_before_a_replica_has_started() {
    let mut world = World::new(1);
    world.object.spec.ranks = Some(2);
    world.quiesce(none);
    world.end_inspection(0);
    world.quiesce(none);
    world.set_ready(world.index("smol-0-0"), true);
    world.quiesce(none);
    assert_eq!((told(&world).started, told(&world).lost), (false, 0), "the other one is about to be ready");
    world.set_ready(world.index("smol-0-1"), true);
    world.quiesce(none);
    assert!(told(&world).started);
    assert!(!world.log.iter().any(|line| line.contains("ExpertsLost")), "{:?}", world.log);
    world.remove(world.index("smol-0-1"));
    world.quiesce(none);
    assert_eq!((told(&world).started, told(&world).lost), (true, 30 * 4));
}

#[test]
fn copies_that_are_not_held_are_made_and_meanwhile_told_of() {
    let mut world = settled_with(1, 2);
    world.object.spec.experts.redundant = 2;
    world.settle(none);
    assert_eq!((told(&world).copies, told(&world).fewer_copies), (60, None));
    // As an operator of before might have left it: layers without copies.
    let whole = map(&world, 0);
    let layers = (0..30).map(|layer| {
        let held = |rank| whole.held(layer, rank).to_vec();
        let (first, second) = (held(0), held(1));
        let second = second.into_iter().filter(|expert| layer > 9 || !first.contains(expert)).collect();
        vec![first, second]
    });
    let fewer = ExpertMap::new(whole.version() + 1, 8, layers.collect()).unwrap();
    assert_eq!(fewer.copies(), 40);
    let text = serde_json::to_string(&fewer).unwrap();
    world.config_maps[0].data.as_mut().unwrap().insert("map.json".into(), text);
    world.quiesce(none);
    assert_eq!(
        told(&world).fewer_copies.as_deref(),
        Some(
            "40 of 60 copies are held: the next expert map has 60, and follows when every ready rank goes by this one"
        )
    );
    ["smol-0-0", "smol-0-1"].iter().for_each(|pod| follow(&mut world, pod));
    world.quiesce(none);
    assert_eq!((told(&world).copies, told(&world).fewer_copies), (60, None));
    let why = told(&world).last_move.unwrap().why;
    assert_eq!(why, "40 copies of experts were held, and there is room for 60");
    ["smol-0-0", "smol-0-1"].iter().for_each(|pod| follow(&mut world, pod));
    assert_eq!(world.settle(none), world.settle(none), "and it is at rest");
}

#[test]
fn a_rank_that_ends_is_waited_for_and_one_on_a_dead_node_is_not() {
    let mut world = settled_with(1, 2);
    let index = world.index("smol-0-1");
    world.delete(index);
    let plan = world.quiesce(none);
    assert_eq!((world.done().as_str(), plan.look_again_after), ("", Some(SignedDuration::from_secs(645))));
    world.now += SignedDuration::from_secs(645);
    world.quiesce(none);
    assert_eq!(world.done(), "-smol-0-1 +smol-0-1");
}

#[test]
fn an_evicted_rank_is_recorded_deleted_and_made_again_in_its_place() {
    let mut world = settled_with(1, 2);
    world.now += SignedDuration::from_secs(60);
    world.evict(world.index("smol-0-0"));
    world.settle(none);
    assert_eq!(world.done(), "-smol-0-0 +smol-0-0");
    assert_eq!(world.object.status.as_ref().unwrap().last_failure.as_ref().unwrap().reason, "Evicted");
}

#[test]
fn two_three_two_leaves_the_ranks_that_stay_alone() {
    let mut world = settled_with(1, 2);
    let uids = |world: &World| -> Vec<_> {
        ["smol-0-0", "smol-0-1"].map(|name| world.pods[world.index(name)].metadata.uid.clone()).into()
    };
    let before = uids(&world);
    world.object.spec.ranks = Some(3);
    world.quiesce(none);
    assert_eq!(world.done(), "+smol-0-2");
    assert_eq!(
        (map(&world, 0).version(), peers(&world, 0)),
        (1, vec![0, 1, 2]),
        "known before it has a share"
    );
    world.set_ready(world.index("smol-0-2"), true);
    world.quiesce(none);
    assert_eq!((map(&world, 0).version(), map(&world, 0).ranks()), (2, 3));
    assert!(map(&world, 0).slots_of(2) >= 60, "a fair share are 80 of 240 slots");
    let moved = told(&world).last_move.unwrap();
    assert_eq!((moved.why.as_str(), moved.outcome), ("ranks went from 2 to 3", MoveOutcome::Moving));
    ["smol-0-0", "smol-0-1", "smol-0-2"].iter().for_each(|pod| follow(&mut world, pod));
    world.quiesce(none);
    assert_eq!(told(&world).last_move.unwrap().outcome, MoveOutcome::Done);

    world.object.spec.ranks = Some(2);
    let plan = world.quiesce(none);
    assert_eq!((map(&world, 0).version(), map(&world, 0).ranks()), (3, 2));
    assert_eq!((world.done().as_str(), plan.rollout.step), ("", Step::HandOver));
    assert_eq!(world.condition(ROLLED_OUT).1, "Progressing");
    follow(&mut world, "smol-0-0");
    world.quiesce(none);
    assert_eq!(world.done(), "", "rank 1 still sends tokens to rank 2");
    follow(&mut world, "smol-0-1");
    world.quiesce(none);
    assert_eq!((world.done().as_str(), peers(&world, 0)), ("-smol-0-2", vec![0, 1, 2]), "it still asks them");
    world.settle(none);
    assert_eq!((peers(&world, 0), uids(&world)), (vec![0, 1], before));
    assert_eq!(world.condition(READY).0, "True");
}

#[test]
fn a_change_of_revision_surges_a_whole_replica() {
    let mut world = settled_with(2, 2);
    world.object.spec.model.quantization = Some(Quantization::Int8);
    world.settle(none);
    assert_eq!(
        world.done(),
        "+smol-2-0 +smol-2-1 -smol-1-0 -smol-1-1 +smol-1-0 +smol-1-1 -smol-0-0 -smol-0-1"
    );
    let mut names: Vec<_> = world.config_maps.iter().filter_map(|map| map.metadata.name.clone()).collect();
    names.sort();
    assert_eq!(names, ["smol-1-experts", "smol-2-experts"], "that of the replica that is gone went too");
}

#[test]
fn one_rank_and_several_are_two_revisions() {
    let mut world = settled_with(1, 1);
    world.object.spec.ranks = Some(2);
    world.settle(none);
    assert_eq!(world.done(), "+smol-1-0 +smol-1-1 -smol-0");
    world.object.spec.ranks = Some(1);
    world.settle(none);
    assert_eq!(world.done(), "+smol-0 -smol-1-0 -smol-1-1");
    assert!(world.config_maps.is_empty());
}

#[test]
fn what_somebody_wrote_into_a_map_is_put_right_under_a_higher_version() {
    let mut world = settled_with(1, 2);
    world.config_maps[0].data.as_mut().unwrap().insert("map.json".into(), "{}".into());
    world.settle(none);
    assert_eq!(map(&world, 0).version(), 2, "the ranks know version 1");
    world.config_maps.clear();
    world.settle(none);
    assert_eq!(map(&world, 0).version(), 3);
    world.config_maps[0].data.as_mut().unwrap().insert("more".into(), "?".into());
    world.settle(none);
    assert_eq!(world.config_maps[0].data.as_ref().unwrap().len(), 3);
    assert_eq!(map(&world, 0).version(), 3);
}

fn write_map(world: &mut World, text: &str) {
    world.config_maps[0].data.as_mut().unwrap().insert("map.json".into(), text.into());
}

/// The map that there is, as somebody would write it under another version.
fn under(world: &World, version: &str) -> String {
    let text = serde_json::to_string(&map(world, 0)).unwrap();
    let (before, after) = text.split_once(':').unwrap();
    format!("{before}:{version},{}", after.split_once(',').unwrap().1)
}

#[test]
fn a_map_with_a_version_beyond_all_counting_is_put_right() {
    let mut world = settled_with(1, 2);
    let text = under(&world, &u64::MAX.to_string());
    write_map(&mut world, &text);
    world.settle(none);
    assert_eq!((map(&world, 0).version(), world.done().as_str()), (2, ""), "ranks refuse it as well");
    assert_eq!(world.condition(READY).0, "True");
}

#[test]
fn a_map_that_was_set_back_gets_a_version_that_ranks_take() {
    let mut world = settled_with(1, 2);
    let first = under(&world, "1");
    for redundant in [8, 4] {
        world.object.spec.experts.redundant = redundant;
        world.settle(none);
    }
    assert_eq!(map(&world, 0).version(), 3);
    write_map(&mut world, &first);
    world.quiesce(none);
    assert!(map(&world, 0).version() > 3);
    world.settle(none);
    assert_eq!(told(&world).routing, 2);
}

#[test]
fn ranks_whose_map_can_be_followed_by_none_are_replaced_one_after_the_other() {
    let mut world = settled_with(1, 2);
    let uids = |world: &World| world.observed().pods.iter().map(|pod| pod.uid.clone()).collect::<Vec<_>>();
    let before = uids(&world);
    for report in world.reports.values_mut() {
        (report.read, report.loaded, report.routing) = (u64::MAX, u64::MAX, u64::MAX);
    }
    let plan = world.quiesce(none);
    assert_eq!(world.done(), "", "they were made a moment ago");
    assert!(plan.look_again_after <= Some(SignedDuration::from_mins(1)));
    assert!(
        told(&world).trouble.unwrap().starts_with("rank 0 says that it read expert map 1844674407370955161")
    );
    world.now += SignedDuration::from_mins(2);
    world.quiesce(none);
    assert_eq!(world.done(), "-smol-0-0", "the other one still answers");
    world.settle(none);
    assert_eq!(world.done(), "+smol-0-0 -smol-0-1 +smol-0-1");
    assert!(uids(&world).iter().all(|uid| !before.contains(uid)));
    assert_eq!((map(&world, 0).version(), told(&world).routing, told(&world).trouble), (1, 2, None));
}

#[test]
fn after_the_highest_version_it_begins_anew() {
    let world = settled_with(1, 2);
    let mut observed = world.observed();
    let last = map(&world, 0).with_version(VERSION_LIMIT).unwrap();
    observed.experts[0].map = Some(last);
    for report in observed.reports.values_mut() {
        (report.read, report.routing) = (VERSION_LIMIT, VERSION_LIMIT);
    }
    let version = |observed: &Observed| {
        let plan = crate::plan::plan(&world.deployment(), observed, world.now);
        plan.experts.replicas[0].version
    };
    assert_eq!(version(&observed), 2, "pods were told of version 1");
    for report in observed.reports.values_mut() {
        report.read = VERSION_LIMIT - 1;
    }
    assert_eq!(version(&observed), 1);
}

#[test]
fn a_rank_that_hangs_and_is_not_needed_any_more_gets_no_time_to_drain() {
    let mut world = settled_with(1, 3);
    world.object.spec.ranks = Some(2);
    let hung = world.index("smol-0-2");
    let uid = ObservedPod::from(&world.pods[hung]).uid;
    world.set_ready(hung, false);
    world.reports.remove(&uid);
    world.quiesce(none);
    ["smol-0-0", "smol-0-1"].iter().for_each(|pod| follow(&mut world, pod));
    let deletes = world.plan().actions.into_iter().find_map(|action| match action {
        Action::DeletePod(deletion) => Some((deletion.name, deletion.grace_seconds)),
        _ => None,
    });
    assert_eq!(deletes, Some(("smol-0-2".to_owned(), Some(10))));
}

#[test]
fn certificates_of_no_use_are_made_anew() {
    let mut world = settled_with(1, 2);
    world.certificates = ObservedCertificates::Unusable("tls.key does not belong to tls.crt".into());
    let objects: Vec<String> = world.plan().actions.iter().map(Action::object).collect();
    assert_eq!(objects, ["Secret smol-exchange-tls"]);
    world.settle(none);
    assert!(matches!(world.certificates, ObservedCertificates::Ours { valid: Some(_), next: None }));
    assert_eq!(world.done(), "");
    world.reports.values_mut().next().unwrap().trouble = Some("tls.crt is of no use".into());
    let again = world.plan().look_again_after;
    assert_eq!(again, Some(SignedDuration::from_mins(1)), "Secrets are not watched");
}

#[test]
fn ranks_are_told_of_new_certificates_without_a_restart() {
    let mut world = settled_with(1, 2);
    let told = |world: &World| ObservedPod::from(&world.pods[0]).told.certificates;
    let first = told(&world);
    world.now += SignedDuration::from_hours(24 * 15);
    world.settle(none);
    let announced = told(&world);
    assert!(announced.starts_with(&first) && announced != first, "{announced}");
    world.now += SignedDuration::from_hours(24 * 5);
    world.settle(none);
    assert_eq!(told(&world), announced.split(' ').nth(1).unwrap());
    assert_eq!(world.done(), "");
}

/// Tokens of which `share` per cent go to the first expert that rank 0 holds, the rest to the first of rank 1.
fn skewed(map: &ExpertMap, share: u64, tokens: u64) -> Vec<Vec<u64>> {
    let layer = |layer: usize| {
        let mut counts = vec![0; map.experts()];
        let first = |rank| usize::from(map.held(layer, rank)[0]);
        counts[first(0)] = tokens * share / 100;
        counts[first(1)] = tokens * (100 - share) / 100;
        counts
    };
    (0..map.layers()).map(layer).collect()
}

#[test]
fn the_balance_is_told_with_two_digits_and_kept_when_nothing_is_asked() {
    let mut world = settled_with(1, 2);
    world.object.spec.experts.rebalance = Rebalance::Never;
    let tokens = skewed(&map(&world, 0), 80, 1000);
    let load = |version| Arc::new(ExpertLoad { ended: world.now, version, tokens: tokens.clone() });
    let (old, new) = (load(7), load(1));
    world.loads.insert(0, old);
    world.quiesce(none);
    assert_eq!(told(&world).balance, None, "that was another map");
    world.loads.insert(0, new);
    world.quiesce(none);
    assert_eq!(told(&world).balance.as_deref(), Some("1.60"));
    let status = world.object.status.clone().unwrap();
    assert_eq!(status.experts.unwrap().balance.as_deref(), Some("1.60"));
    world.loads.clear();
    assert!(!world.reconcile().1, "nothing is written");
    world.object.spec.experts.redundant = 8;
    world.quiesce(none);
    assert_eq!((told(&world).version, told(&world).balance), (2, None), "of this map nothing was measured");
}

#[test]
fn a_limit_of_memory_bounds_what_a_rank_takes_over_from_lost_ones() {
    let args = |limit: Option<&str>| {
        let mut world = World::new(1);
        world.object.spec.ranks = Some(2);
        let limit = limit.map(|limit| ("memory".to_owned(), Quantity(limit.to_owned())));
        world.object.spec.template.resources.limits = limit.into_iter().collect();
        world.settle(|_, _| {});
        let spec = world.pods[0].spec.clone().unwrap();
        (spec.containers[0].args.clone().unwrap().join(" "), world.object.status.unwrap().capacity.unwrap())
    };
    let (unlimited, capacity) = args(None);
    assert!(!unlimited.contains("--adopt-limit"), "{unlimited}");
    // 30 layers of 8 experts, in all 4 GiB: an expert has 17.07 MiB.
    let expert = (4 << 30) / 240;
    let limit = (capacity.needed + 10 * expert + expert / 2).to_string();
    let (limited, _) = args(Some(&limit));
    assert!(limited.contains("--adopt-limit 10"), "{limited}");
}

#[test]
fn where_memory_forbids_to_take_over_what_is_lost_it_is_told_that_requests_wait() {
    let lost = |limit: u64| {
        let mut world = World::new(1);
        world.object.spec.ranks = Some(2);
        let limit = ("memory".to_owned(), Quantity(limit.to_string()));
        world.object.spec.template.resources.limits = [limit].into();
        world.settle(none);
        world.remove(world.index("smol-0-1"));
        let before = world.object.status.clone().unwrap();
        world.quiesce(none);
        let after = world.object.status.clone().unwrap();
        let notes = crate::status::events(&before, &after);
        let note = notes.into_iter().find(|note| note.reason == "ExpertsLost").unwrap();
        (told(&world).trouble, note.message)
    };
    let (trouble, event) = lost(5200 << 20);
    let trouble = trouble.unwrap();
    assert!(
        trouble.contains("have room for 5 of the 120 experts that are lost: requests that need"),
        "{trouble}"
    );
    assert!(event.contains("wait until the lost rank is back; raise that limit"), "{event}");
    let (trouble, event) = lost(16 << 30);
    assert_eq!(trouble, None);
    assert!(event.contains("the others load them"), "{event}");
}

#[test]
fn experts_are_moved_when_that_pays_and_not_again_at_once() {
    let mut world = settled_with(1, 2);
    let before = map(&world, 0);
    // Rank 0 has four busy experts in every layer, rank 1 four idle ones.
    let busy = |layer: usize| {
        let held = before.held(layer, 0);
        (0..8_u16).map(|expert| if held.contains(&expert) { 5000 } else { 10 }).collect::<Vec<u64>>()
    };
    let tokens: Vec<Vec<u64>> = (0..30).map(busy).collect();
    let load =
        |world: &World, version| Arc::new(ExpertLoad { ended: world.now, version, tokens: tokens.clone() });
    let first = load(&world, 1);
    world.loads.insert(0, first);
    world.quiesce(none);
    let after = map(&world, 0);
    assert_eq!(after.version(), 2);
    let moved = told(&world).last_move.unwrap();
    assert!(moved.why.starts_with("balance: worth it: would save"), "{}", moved.why);
    assert_eq!((moved.balance_before.as_deref(), moved.outcome), (Some("2.00"), MoveOutcome::Moving));
    assert!(moved.slots > 0 && moved.slots <= 30, "an eighth of 240 slots at most: {}", moved.slots);
    ["smol-0-0", "smol-0-1"].iter().for_each(|pod| follow(&mut world, pod));
    let second = load(&world, 2);
    world.loads.insert(0, second);
    let plan = world.quiesce(none);
    assert_eq!(map(&world, 0).version(), 2, "it is too early for another move");
    assert_eq!(plan.look_again_after, Some(SignedDuration::from_mins(5)));
    let better = told(&world).balance.unwrap();
    assert!(better.parse::<f64>().unwrap() < 2.0, "{better}");
    world.now += SignedDuration::from_mins(5);
    world.quiesce(none);
    assert_eq!(map(&world, 0).version(), 3, "as many again");
}
