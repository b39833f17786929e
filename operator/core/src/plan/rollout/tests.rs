//! Exact sequences. What holds in every state is checked in `invariants`.

mod invariants;

use super::Step;
use crate::observed::{ObservedPod, Role};
use crate::plan::Action;
use crate::world::{World, rank_name, settled};
use coterie_api::condition::{PLACED, READY, ROLLED_OUT, SERVING, WEIGHTS_LOADED, reason};
use coterie_api::deployment::{AcceleratorSpec, DeviceChoice};
use coterie_api::launch::{Device, Quantization};
use jiff::SignedDuration;

fn none(_: &World, _: &crate::plan::Plan) {}

fn rank_pods(world: &World) -> String {
    let names = world.pods.iter().filter_map(|pod| pod.metadata.name.clone());
    names.collect::<Vec<_>>().join(" ")
}

/// The index of a live, started rank.
fn ready(world: &World, replica: u32) -> usize {
    world.index(&rank_name(replica))
}

#[test]
fn a_new_deployment_is_inspected_and_then_served() {
    let mut world = World::new(2);
    let hash = super::super::inspection::source_hash(&world.deployment());
    world.settle(none);
    let inspect = format!("smol-inspect-{}", &hash[..6]);
    assert_eq!(world.done(), format!("+{inspect} +smol-0 +smol-1 -{inspect}"));
    assert_eq!(world.condition(READY).0, "True");
}

#[test]
fn a_large_deployment_starts_a_few_ranks_at_a_time() {
    let mut world = World::new(60);
    world.quiesce(none);
    world.end_inspection(0);
    let plan = world.quiesce(none);
    let ranks = |world: &World| {
        world.pods.iter().filter(|pod| ObservedPod::from(*pod).role == Some(Role::Rank)).count()
    };
    assert_eq!((ranks(&world), plan.rollout.step), (25, Step::WaitForReady));
    for replica in 0..10 {
        world.set_ready(ready(&world, replica), true);
    }
    world.quiesce(none);
    assert_eq!(ranks(&world), 35, "as many more as are ready");
    let plan = world.settle(invariants::check);
    assert_eq!((ranks(&world), plan.rollout.step), (60, Step::Complete));
}

#[test]
fn ranks_that_fall_ill_together_hold_new_ones_back_until_some_are_well() {
    let mut world = settled(30);
    (0..30).for_each(|replica| world.set_ready(ready(&world, replica), false));
    world.remove(ready(&world, 3));
    assert_eq!(world.quiesce(none).rollout.step, Step::WaitForReady);
    assert_eq!(world.done(), "");
    world.settle(invariants::check);
    assert_eq!(world.done(), "+smol-3");
}

#[test]
fn weights_that_are_inspected_block_nothing() {
    let mut world = World::new(1);
    let plan = world.quiesce(none);
    assert_eq!(plan.rollout.step, Step::WaitForInspection);
    assert_eq!(world.object.status.as_ref().unwrap().rollout.as_ref().unwrap().hold_reason, None);
    world.verdict = (1, r#"{"reason":"ModelRejected","message":"no model; correct the source"}"#.into());
    world.end_inspection(0);
    assert_eq!(world.quiesce(none).rollout.step, Step::Blocked);
    let rollout = world.object.status.as_ref().unwrap().rollout.clone().unwrap();
    assert_eq!(rollout.hold_reason.as_deref(), Some("no model; correct the source"));
}

#[test]
fn one_two_one() {
    let mut world = settled(1);
    world.object.spec.replicas = 2;
    world.settle(none);
    assert_eq!(world.done(), "+smol-1");
    world.object.spec.replicas = 1;
    world.settle(none);
    assert_eq!(world.done(), "-smol-1");
    assert_eq!(rank_pods(&world), "smol-0");
}

#[test]
fn scale_down_takes_those_that_serve_nobody_first() {
    let mut world = settled(3);
    world.set_ready(0, false);
    assert_eq!(world.pods[0].metadata.name.as_deref(), Some("smol-0"));
    world.object.spec.replicas = 1;
    world.settle(none);
    assert_eq!(world.done(), "-smol-0 -smol-2");
}

/// Whether the clients' Service selects a rank.
fn serves(world: &World, replica: u32) -> bool {
    ObservedPod::from(&world.pods[ready(world, replica)]).cordoned.is_none()
}

fn ask(world: &mut World, replica: u32, requests: u64) {
    let uid = ObservedPod::from(&world.pods[ready(world, replica)]).uid;
    world.requests.insert(uid, requests);
}

#[test]
fn scale_down_takes_the_emptiest_out_of_service_and_deletes_it_when_it_is_empty() {
    let mut world = settled(3);
    for (replica, requests) in [(0, 4), (1, 2), (2, 9)] {
        ask(&mut world, replica, requests);
    }
    world.object.spec.replicas = 2;
    let plan = world.quiesce(none);
    assert_eq!((plan.rollout.step, plan.rollout.draining), (Step::WaitForDrain, 1));
    assert_eq!([0, 1, 2].map(|replica| serves(&world, replica)), [true, false, true]);
    // Another is emptier now; one is enough.
    ask(&mut world, 0, 0);
    world.now += SignedDuration::from_secs(60);
    world.quiesce(none);
    assert_eq!(world.done(), "");
    ask(&mut world, 1, 0);
    world.quiesce(none);
    assert_eq!(world.done(), "-smol-1");
}

#[test]
fn a_replica_that_drains_is_recalled_before_another_is_made() {
    let mut world = settled(3);
    (0..3).for_each(|replica| ask(&mut world, replica, 1));
    world.object.spec.replicas = 0;
    world.quiesce(invariants::check);
    world.now += SignedDuration::from_secs(5);
    world.object.spec.replicas = 2;
    let plan = world.quiesce(invariants::check);
    assert_eq!([0, 1, 2].map(|replica| serves(&world, replica)), [true, true, false]);
    assert_eq!(plan.rollout.updated_ready, 2);
    world.requests.clear();
    world.settle(invariants::check);
    assert_eq!(world.done(), "-smol-2");
    // One of a revision that nobody asks for any more is not.
    ask(&mut world, 0, 1);
    world.object.spec.replicas = 1;
    world.quiesce(invariants::check);
    world.object.spec.model.quantization = Some(Quantization::Int8);
    world.object.spec.replicas = 2;
    world.settle(invariants::check);
    assert!(!world.done().is_empty());
}

#[test]
fn an_empty_look_counts_only_once_everybody_has_heard_of_the_cordon() {
    let mut world = settled(2);
    world.object.spec.replicas = 1;
    world.quiesce(none);
    world.now += SignedDuration::from_secs(2);
    world.quiesce(none);
    assert_eq!(world.done(), "");
    world.now += SignedDuration::from_secs(1);
    world.quiesce(none);
    assert_eq!(world.done(), "-smol-1");
}

#[test]
fn a_drain_ends_when_its_time_is_over_and_one_that_is_not_told_of_sooner() {
    let mut world = settled(2);
    (0..2).for_each(|replica| ask(&mut world, replica, 3));
    world.object.spec.replicas = 1;
    let plan = world.quiesce(none);
    assert_eq!(plan.look_again_after, Some(SignedDuration::from_secs(600)));
    world.now += SignedDuration::from_secs(600);
    let plan = world.plan();
    let [Action::DeletePod(deletion)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
    assert_eq!((deletion.name.as_str(), deletion.grace_seconds), ("smol-1", Some(10)));

    let mut world = settled(2);
    world.untold = true;
    world.object.spec.replicas = 1;
    let plan = world.quiesce(none);
    assert_eq!(plan.look_again_after, Some(SignedDuration::from_secs(3)));
    world.now += SignedDuration::from_secs(3);
    let plan = world.plan();
    let [Action::DeletePod(deletion)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
    assert_eq!((deletion.name.as_str(), deletion.grace_seconds), ("smol-1", None));
}

#[test]
fn scale_to_zero_and_back() {
    let mut world = settled(2);
    world.object.spec.replicas = 0;
    world.settle(none);
    assert_eq!(world.done(), "-smol-1 -smol-0");
    assert_eq!(world.condition(SERVING).1, "ScaledToZero");
    assert_eq!(world.condition(READY).1, "ScaledToZero");
    world.object.spec.replicas = 1;
    world.settle(none);
    assert_eq!(world.done(), "+smol-0");
}

#[test]
fn a_revision_change_of_one_replica_surges_waits_and_drains() {
    let mut world = settled(1);
    world.object.spec.model.quantization = Some(Quantization::Int8);
    assert_eq!(world.quiesce(none).rollout.step, Step::WaitForReady);
    assert_eq!(world.done(), "+smol-1");
    world.set_ready(ready(&world, 1), true);
    assert_eq!(world.quiesce(none).rollout.step, Step::WaitForDrain);
    assert_eq!(world.condition(ROLLED_OUT).0, "True", "what drains does not count");
    world.now += SignedDuration::from_secs(3);
    assert_eq!(world.quiesce(none).rollout.step, Step::WaitForDrain);
    assert_eq!(world.done(), "-smol-0");
    world.remove(ready(&world, 0));
    assert_eq!(world.quiesce(none).rollout.step, Step::Complete);
    assert_eq!(world.done(), "");
}

#[test]
fn a_revision_change_of_three_replicas_goes_one_by_one() {
    let mut world = settled(3);
    world.object.spec.rollout.drain_seconds = 60;
    world.settle(none);
    assert_eq!(world.done(), "+smol-3 -smol-2 +smol-2 -smol-1 +smol-1 -smol-0");
    assert_eq!(rank_pods(&world), "smol-3 smol-2 smol-1");
}

#[test]
fn the_next_surge_waits_for_the_drain_but_not_for_a_dead_node() {
    let mut world = settled(3);
    world.object.spec.rollout.drain_seconds = 60;
    world.quiesce(none);
    world.set_ready(ready(&world, 3), true);
    let plan = world.quiesce(none);
    assert_eq!((plan.rollout.step, plan.rollout.draining), (Step::WaitForDrain, 1));
    assert_eq!(world.done(), "+smol-3", "the next waits for what is out of service, too");
    let (state, reason, message) = world.condition(PLACED);
    assert_eq!(
        (state.as_str(), reason.as_str()),
        ("False", reason::PROGRESSING),
        "nothing is unscheduled: {message}"
    );
    world.now += SignedDuration::from_secs(3);
    let plan = world.quiesce(none);
    assert_eq!((plan.rollout.step, plan.rollout.draining), (Step::WaitForDrain, 1));
    assert_eq!(world.done(), "-smol-2");
    // The node of smol-2 is gone: 600 s of drain, 15 s of grace, and 30 s are over.
    assert_eq!(plan.look_again_after, Some(SignedDuration::from_secs(645)));
    world.now += SignedDuration::from_secs(645);
    world.quiesce(none);
    assert_eq!(world.done(), "+smol-4", "the number 2 is still taken");
}

#[test]
fn a_new_revision_that_never_gets_ready_holds_and_the_old_one_serves() {
    let mut world = settled(2);
    world.broken = Some("--quantization int8");
    world.object.spec.model.quantization = Some(Quantization::Int8);
    world.settle(none);
    assert_eq!(world.done(), "+smol-2");
    world.crash(ready(&world, 2), 1, r#"{"reason":"Failed","message":"out of memory; raise the limit"}"#);
    world.settle(none);
    assert_eq!(world.done(), "");
    assert_eq!(world.condition(SERVING).0, "True");
    assert_eq!(world.condition(WEIGHTS_LOADED).1, "CrashLoop");
    let (status, reason, message) = world.condition(ROLLED_OUT);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Held"));
    assert!(message.ends_with("out of memory; raise the limit"), "{message}");
    // Taken back: the broken one goes at once, no other pod is touched.
    world.object.spec.model.quantization = None;
    world.settle(none);
    assert_eq!(world.done(), "-smol-2");
    assert_eq!(world.condition(READY).0, "True");
}

#[test]
fn a_deleted_pod_is_replaced_at_once_under_another_number() {
    let mut world = settled(2);
    world.delete(ready(&world, 0));
    world.quiesce(none);
    assert_eq!(world.done(), "+smol-2", "smol-0 is still ending");
}

#[test]
fn a_pod_deleted_by_force_is_replaced_at_once_under_its_number() {
    let mut world = settled(2);
    world.remove(ready(&world, 0));
    world.quiesce(none);
    assert_eq!(world.done(), "+smol-0");
}

#[test]
fn an_evicted_pod_is_replaced_at_once_and_its_replacements_with_back_off() {
    let mut world = settled(1);
    world.now += SignedDuration::from_secs(60);
    world.evict(ready(&world, 0));
    world.quiesce(none);
    assert_eq!(world.done(), "+smol-1 -smol-0");
    let mut waits = Vec::new();
    for _ in 0..7 {
        world.now += SignedDuration::from_secs(1);
        world.evict(world.pods.len() - 1);
        let plan = world.quiesce(none);
        assert_eq!(plan.rollout.step, Step::BackOff);
        assert_eq!(world.condition(ROLLED_OUT).1, "BackingOff");
        let wait = plan.look_again_after.unwrap();
        waits.push(wait.as_secs());
        world.now += wait;
        world.quiesce(none);
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    let failure = world.object.status.as_ref().unwrap().last_failure.clone().unwrap();
    assert_eq!((failure.reason.as_str(), failure.count), ("Evicted", 8));
    // A quiet time ends the row.
    world.settle(none);
    world.now += SignedDuration::from_secs(700);
    world.log.clear();
    world.evict(0);
    world.quiesce(none);
    assert!(world.done().starts_with("+smol-"));
}

#[test]
fn pods_evicted_together_are_all_replaced_at_once() {
    let mut world = settled(3);
    world.now += SignedDuration::from_secs(60);
    (0..3).for_each(|index| world.evict(index));
    world.quiesce(none);
    assert_eq!(world.done(), "+smol-3 +smol-4 +smol-5 -smol-0 -smol-1 -smol-2");
    assert_eq!(world.object.status.as_ref().unwrap().last_failure.as_ref().unwrap().count, 1);
}

#[test]
fn a_crash_is_left_to_the_kubelet_and_kept_in_status() {
    let mut world = settled(1);
    world.crash(0, 101, "thread main panicked at runtime/src/main.rs:1");
    world.quiesce(none);
    world.now += SignedDuration::from_secs(20);
    world.crash(0, 101, "thread main panicked at runtime/src/main.rs:1");
    world.quiesce(none);
    assert_eq!(world.done(), "");
    let failure = world.object.status.as_ref().unwrap().last_failure.clone().unwrap();
    assert_eq!((failure.pod.as_str(), failure.reason.as_str(), failure.count), ("smol-0", "Error", 2));
    assert!(failure.message.contains("exit code 101: thread main panicked"), "{}", failure.message);
    assert_eq!(world.condition(READY).1, "CrashLoop");
    world.settle(none);
    assert_eq!(world.condition(READY).0, "True");
    assert!(world.object.status.as_ref().unwrap().last_failure.is_some(), "kept after recovery");
}

#[test]
fn gpus_that_cannot_be_used_are_told_of_and_heal() {
    let mut world = World::new(1);
    world.settings.gpu_runtime_image = Some("localhost/coterie:1-gpu".into());
    (world.nodes[0].allocatable.gpus, world.nodes[0].gpu_memory) = (1, 80 << 30);
    world.nodes[0].free = world.nodes[0].allocatable;
    let mut inspection = crate::world::inspection();
    inspection.devices.push(Device::Gpu);
    world.verdict = (0, serde_json::to_string(&inspection).unwrap());
    world.settle(none);
    let container = &world.pods[0].spec.as_ref().unwrap().containers[0];
    assert_eq!(container.image.as_deref(), Some("localhost/coterie:1-gpu"));
    assert_eq!(container.resources.as_ref().unwrap().limits.as_ref().unwrap()["nvidia.com/gpu"].0, "1");

    world.object.spec.accelerator = AcceleratorSpec {
        device: DeviceChoice::Gpu,
        per_rank: Some(1),
        claim_template: Some("one-gpu".into()),
    };
    world.settle(none);
    let spec = world.pods[0].spec.as_ref().unwrap();
    let claim = &spec.resource_claims.as_ref().unwrap()[0];
    assert_eq!(
        (claim.name.as_str(), claim.resource_claim_template_name.as_deref()),
        ("gpus", Some("one-gpu"))
    );
    let resources = spec.containers[0].resources.as_ref().unwrap();
    assert_eq!(
        (resources.claims.as_ref().unwrap()[0].name.as_str(), resources.limits.as_ref()),
        ("gpus", None)
    );
    world.done();

    let sentence = "the NVIDIA driver speaks CUDA 11.4 and 12.0 is needed; update the node's driver";
    for _ in 0..3 {
        world.crash(0, 1, &format!(r#"{{"reason":"DeviceUnusable","message":"{sentence}"}}"#));
        world.now += SignedDuration::from_secs(20);
    }
    world.quiesce(none);
    let (state, reason, message) = world.condition(PLACED);
    assert_eq!(
        (state.as_str(), reason.as_str(), message.as_str()),
        ("False", reason::DEVICE_UNUSABLE, sentence)
    );
    assert_eq!(world.condition(READY).1, reason::DEVICE_UNUSABLE);
    assert_eq!(world.done(), "", "it is left to the kubelet's back-off");
    world.settle(none);
    assert_eq!(world.condition(READY).0, "True");
}

#[test]
fn an_upgrade_of_the_operator_touches_no_pod_and_replacements_run_what_their_siblings_run() {
    let mut world = settled(2);
    world.settings.runtime_image = "localhost/coterie:2".into();
    world.settle(none);
    assert_eq!(world.done(), "");
    world.remove(0);
    world.settle(none);
    assert_eq!(world.done(), "+smol-0");
    let image = |world: &World, index: usize| world.observed().pods[index].image.clone();
    assert_eq!(image(&world, 1), "localhost/coterie:1");
    // The restart annotation takes the new image, pod by pod.
    world.object.metadata.annotations = Some([("coterie.dev/restart".to_owned(), "now".to_owned())].into());
    world.settle(none);
    assert!((0..2).all(|index| image(&world, index) == "localhost/coterie:2"));
}

#[test]
fn an_image_that_cannot_be_pulled_is_left_behind_by_an_upgrade() {
    let mut world = settled(1);
    world.set_ready(0, false);
    world.wait_for(0, "ImagePullBackOff", "Back-off pulling image \"x\": ErrImagePull: not found");
    world.quiesce(none);
    assert_eq!(world.done(), "");
    world.settings.runtime_image = "localhost/coterie:2".into();
    world.quiesce(none);
    assert_eq!(world.done(), "-smol-0 +smol-1");
}

#[test]
fn scale_down_goes_on_while_nothing_could_be_made() {
    let mut world = settled(3);
    world.object.spec.model.context_length = Some(1_000_000);
    world.object.spec.replicas = 1;
    world.settle(none);
    assert_eq!(world.done(), "-smol-2 -smol-1");
    assert_eq!(world.condition(SERVING).0, "True");
    assert_eq!(world.condition(READY).1, "ContextTooLong");
    world.object.spec.model.context_length = None;
    world.settle(none);
    assert_eq!(world.done(), "");
    assert_eq!(world.condition(READY).0, "True");
}

#[test]
fn names_of_others_are_avoided() {
    let world = World::new(1);
    let mut observed = settled(1).observed();
    observed.pods.clear();
    observed.taken_names = ["smol-0".to_owned(), "smol-1".to_owned()].into();
    let plan = crate::plan::plan(&world.deployment(), &observed, world.now);
    assert_eq!(plan.actions.iter().map(Action::object).collect::<Vec<_>>(), ["Pod smol-2"]);
}
