use super::*;
use crate::plan::Action;
use crate::validate::validate;
use crate::world::{GIB, World, node, settled};
use coterie_api::condition::{PLACED, READY, ROLLED_OUT, SERVING, WEIGHTS_LOADED};
use coterie_api::launch::Quantization;
use jiff::SignedDuration;

fn none(_: &World, _: &Plan) {}

fn world_status(world: &World) -> ModelDeploymentStatus {
    world.object.status.clone().unwrap()
}

#[test]
fn a_start_tells_each_step_once() {
    let mut world = World::new(2);
    world.settle(none);
    let log = std::mem::take(&mut world.log);
    let told: Vec<&str> = log.iter().filter_map(|entry| entry.strip_prefix('!')).collect();
    assert_eq!(told.join(" "), "Inspecting Accepted Progressing Placed Loaded Answering Complete AsAsked");
}

#[test]
fn the_numbers_are_those_that_people_and_autoscalers_read() {
    let mut world = settled(2);
    world.set_ready(0, false);
    world.quiesce(none);
    let status = world_status(&world);
    assert_eq!(
        (status.replicas, status.ready_replicas, status.ready_of_desired.as_deref()),
        (2, 1, Some("1/2"))
    );
    assert_eq!(status.selector.as_deref(), Some("coterie.dev/model-deployment=smol,coterie.dev/role=rank"));
    assert_eq!(status.endpoint.as_deref(), Some("http://smol.chat.svc"));
    assert_eq!((status.quantization, status.context_length), (Some(Quantization::None), Some(8192)));
    assert_eq!(status.observed_generation, Some(1));
    let capacity = status.capacity.unwrap();
    assert_eq!((capacity.needed, capacity.free), (5108 << 20, None));
    assert_eq!(status.rollout.unwrap().step, "WaitForReady");
}

#[test]
fn times_of_transition_change_only_with_the_status() {
    let mut world = settled(1);
    let time = |world: &World, kind: &str| {
        let status = world_status(world);
        let condition = status.conditions.into_iter().find(|condition| condition.type_ == kind).unwrap();
        condition.last_transition_time
    };
    let (ready, valid) = (time(&world, READY), time(&world, VALID));
    world.now += SignedDuration::from_secs(60);
    world.crash(0, 1, "");
    world.quiesce(none);
    assert_ne!(time(&world, READY), ready);
    assert_eq!(time(&world, VALID), valid);
    let ready = time(&world, READY);
    world.now += SignedDuration::from_secs(60);
    world.object.spec.replicas = 0;
    world.quiesce(none);
    assert_eq!(
        (world.condition(READY).1.as_str(), time(&world, READY)),
        ("ScaledToZero", ready),
        "still not ready"
    );
}

#[test]
fn a_fraction_of_a_second_is_no_change() {
    let mut world = World::new(1);
    world.now += SignedDuration::from_millis(1_234);
    world.settle(none);
    let (plan, written) = world.reconcile();
    assert!(plan.actions.is_empty() && !written);
}

#[test]
fn pods_of_others_do_not_change_the_status_of_a_placed_deployment() {
    let mut world = settled(1);
    world.nodes[0].free.memory = GIB;
    assert!(!world.reconcile().1);
}

#[test]
fn a_rank_that_waits_for_room_is_told_what_is_free() {
    let mut world = settled(1);
    world.object.spec.replicas = 2;
    world.quiesce(none);
    world.unschedulable(1, "0/1 nodes are available: 1 Insufficient memory.");
    world.nodes[0].free.memory = GIB;
    world.quiesce(none);
    let (_, reason, message) = world.condition(PLACED);
    assert_eq!(reason, reason::NO_ROOM);
    assert_eq!(
        message,
        "1 rank waits for room: one needs 4.9 GiB, and the most that is free on one node is 1.0 GiB (scheduler: 0/1 \
         nodes are available: 1 Insufficient memory); free resources, add a node, or lower replicas"
    );
    assert_eq!(world_status(&world).capacity.unwrap().free, Some(GIB));
    assert_eq!(world.condition(SERVING).0, "True");
    // Room, but the scheduler says no all the same.
    world.nodes[0].free.memory = 64 * GIB;
    world.quiesce(none);
    let (_, reason, message) = world.condition(PLACED);
    assert_eq!(reason, reason::UNSCHEDULABLE);
    assert!(message.starts_with("no node takes pod smol-1: 0/1 nodes are available"), "{message}");
}

#[test]
fn nodes_that_are_too_small_are_told_until_the_rank_is_placed_all_the_same() {
    let mut world = World::new(1);
    world.nodes = vec![node("small", GIB)];
    world.quiesce(none);
    world.end_inspection(0);
    world.quiesce(none);
    assert_eq!(world.condition(READY).1, reason::NODE_TOO_SMALL);
    assert!(world_status(&world).rollout.is_some_and(|rollout| rollout.revision.is_some()));
    world.settle(none);
    assert_eq!(world.condition(PLACED).1, reason::PLACED, "the scheduler has the last word");
}

#[test]
fn what_cannot_work_anywhere_makes_no_rank_and_heals() {
    let mut world = World::new(1);
    world.object.spec.model.context_length = Some(9000);
    world.settle(none);
    assert!(world.pods.is_empty());
    assert_eq!(world.condition(READY).1, reason::CONTEXT_TOO_LONG);
    assert_eq!(world.condition(PLACED).0, "Unknown");
    assert_eq!(world.condition(ROLLED_OUT).1, reason::BLOCKED);
    let hold = world_status(&world).rollout.unwrap();
    assert!(hold.step == "Blocked" && hold.hold_reason.unwrap().contains("was made for 8192 tokens"));
    world.object.spec.model.context_length = Some(8000);
    world.settle(none);
    assert_eq!(world.condition(READY).0, "True");
}

#[test]
fn a_service_name_that_is_taken() {
    let mut world = settled(1);
    world.services[0].metadata.owner_references = None;
    let plan = world.quiesce(none);
    assert_eq!(plan.foreign_services, ["smol"]);
    let (_, reason, message) = world.condition(SERVING);
    assert_eq!(reason, reason::SERVICE_NAME_TAKEN);
    assert!(message.ends_with("delete it, or give this ModelDeployment another name"), "{message}");
    world.services.remove(0);
    world.settle(none);
    assert_eq!(world.condition(READY).0, "True");
}

#[test]
fn a_refusal_of_the_api_server_is_told_in_its_words() {
    let world = World::new(1);
    let (deployment, observed, plan) = (world.deployment(), world.observed(), world.plan());
    let refusal = Refusal { object: plan.actions[2].object(), message: "exceeded quota: pods.".into() };
    let applied = Applied { refusals: vec![refusal] };
    let status = status(&deployment, &observed, &plan, &applied, world.now);
    let condition = status.conditions.iter().find(|condition| condition.type_ == ROLLED_OUT).unwrap();
    assert_eq!(condition.reason, reason::APPLY_FAILED);
    assert!(
        condition.message.contains(": exceeded quota: pods; correct what it names"),
        "{}",
        condition.message
    );
}

#[test]
fn an_invalid_spec_leaves_everything_else_as_it_was() {
    let mut world = settled(1);
    world.object.spec.replicas = -1;
    world.object.metadata.generation = Some(2);
    let why = validate(&world.object).unwrap_err();
    let status = status_of_invalid(&world.object, &why, world.now);
    assert_eq!((status.observed_generation, status.ready_replicas), (Some(2), 1));
    world.object.status = Some(status.clone());
    assert_eq!(
        world.condition(READY),
        ("False".into(), "InvalidSpec".into(), "replicas is -1: set 0 or more".into())
    );
    assert_eq!(world.condition(SERVING).0, "True");
    assert_eq!(status_of_invalid(&world.object, &why, world.now + SignedDuration::from_secs(9)), status);
    world.object.status = None;
    world.object.status = Some(status_of_invalid(&world.object, &why, world.now));
    assert_eq!(world.condition(WEIGHTS_LOADED).0, "Unknown");
}

#[test]
fn an_event_is_no_longer_than_the_api_server_takes() {
    let mut world = World::new(1);
    let long = format!(r#"{{"reason":"ModelRejected","message":"{}"}}"#, "é".repeat(2000));
    world.verdict = (1, long);
    world.quiesce(none);
    let before = world_status(&world);
    world.end_inspection(0);
    world.reconcile();
    let notes = events(&before, &world_status(&world));
    assert_eq!(notes.len(), 1);
    assert!(notes[0].warning && notes[0].reason == "ModelRejected" && notes[0].action == "Valid");
    assert_eq!(notes[0].message.len(), 1024);
}

/// What a message of every condition that is not true ends with: something to do, or where to look.
#[test]
fn every_condition_that_is_not_true_has_a_remedy() {
    let mut world = World::new(2);
    world.settle(|world, _| {
        let Some(status) = &world.object.status else { return };
        for condition in status.conditions.iter().filter(|condition| condition.status != "True") {
            let remedy = ["; wait", "see ", "; set "].iter().any(|remedy| condition.message.contains(remedy));
            assert!(remedy, "{}: {}", condition.type_, condition.message);
        }
    });
}

#[test]
fn actions_name_their_objects() {
    let objects: Vec<String> = World::new(1).plan().actions.iter().map(Action::object).collect();
    assert_eq!(objects[..2], ["Service smol", "Service smol-ranks"]);
    assert!(objects[2].starts_with("Pod smol-inspect-"));
}

#[test]
fn a_decision_of_the_scaler_is_one_event() {
    use coterie_api::deployment::scaling::{ScalingDecision, ScalingStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    let with = |decisions| ModelDeploymentStatus {
        scaling: Some(ScalingStatus {
            time: Time(Timestamp::UNIX_EPOCH),
            queue_depth: 3,
            waiting: 0,
            running: 0,
            desired: 2,
            why: "3 requests wait".into(),
            measured: None,
            decisions,
        }),
        ..ModelDeploymentStatus::default()
    };
    let time = Time(Timestamp::UNIX_EPOCH);
    let decision = ScalingDecision { time, from: 1, to: 2, why: "3 requests wait".into() };
    let notes = events(&with(Vec::new()), &with(vec![decision.clone()]));
    let told: Vec<(&str, &str)> = notes.iter().map(|it| (it.reason.as_str(), it.message.as_str())).collect();
    assert_eq!(told, [("Scaled", "1 -> 2 replicas: 3 requests wait")]);
    assert_eq!(events(&with(vec![decision.clone()]), &with(vec![decision])), []);
}
