use crate::observed::ClaimState;
use crate::plan::Plan;
use crate::world::{World, inspection, settled};
use coterie_api::condition::{READY, VALID, reason};
use coterie_api::deployment::{ClaimSource, SourceSpec};
use jiff::SignedDuration;
use std::collections::BTreeMap;

fn none(_: &World, _: &Plan) {}

fn claim(world: &mut World, state: ClaimState) {
    let claim = ClaimSource { claim_name: "weights".into(), path: Some("mixtral".into()) };
    world.object.spec.model.source = SourceSpec { image: None, persistent_volume_claim: Some(claim) };
    world.claim = Some(state);
}

/// Entries of the log about inspect pods, without their hash.
fn inspections(world: &mut World) -> String {
    let log = world.done();
    let short = |entry: &str| entry.split_once("-inspect").map(|(start, _)| format!("{start}-inspect"));
    log.split(' ').filter_map(short).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_was_found_is_in_status_before_its_pod_goes() {
    let mut world = World::new(1);
    world.quiesce(none);
    assert_eq!(world.condition(VALID).1, reason::INSPECTING);
    world.end_inspection(0);
    let (plan, written) = world.reconcile();
    assert!(written && plan.inspection.weights.is_some());
    assert_eq!(world.pods.len(), 2, "the inspect pod and the first rank");
    let weights = world.object.status.as_ref().unwrap().weights.clone().unwrap();
    assert_eq!(weights.inspection, inspection());
    world.quiesce(none);
    assert_eq!(inspections(&mut world), "+smol-inspect -smol-inspect");
}

#[test]
fn a_restarted_operator_does_not_inspect_again_but_a_restart_of_the_pods_does() {
    let mut world = settled(1);
    world.settle(none);
    assert_eq!(inspections(&mut world), "");
    world.object.metadata.annotations = Some([("coterie.dev/restart".to_owned(), "1".to_owned())].into());
    world.settle(none);
    assert_eq!(world.condition(READY).0, "True");
    assert_eq!(inspections(&mut world), "+smol-inspect -smol-inspect");
}

#[test]
fn a_rejected_model_is_told_in_its_own_words_tried_again_and_heals() {
    let mut world = World::new(1);
    let sentence = "model.safetensors: offsets of layer.0 end past the file; copy the file again";
    world.verdict = (1, format!(r#"{{"reason":"ModelRejected","message":"{sentence}"}}"#));
    let mut waits = Vec::new();
    for _ in 0..7 {
        world.quiesce(none);
        world.end_inspection(0);
        let plan = world.quiesce(none);
        let wait = plan.look_again_after.unwrap();
        assert_eq!(world.condition(VALID), ("False".into(), reason::MODEL_REJECTED.into(), sentence.into()));
        assert_eq!(world.condition(READY).1, reason::MODEL_REJECTED);
        assert_eq!(world.pods.len(), 1, "the pod stays for its logs");
        waits.push(wait.as_secs());
        world.now += wait;
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(world.object.status.as_ref().unwrap().last_inspect_failure.as_ref().unwrap().count, 7);
    world.verdict = World::new(1).verdict;
    world.settle(none);
    assert_eq!(world.condition(READY).0, "True");
    assert_eq!(world.object.status.as_ref().unwrap().last_inspect_failure, None);
}

#[test]
fn another_source_is_inspected_at_once_while_the_old_one_serves() {
    let mut world = settled(1);
    world.verdict = (1, r#"{"reason":"ModelRejected","message":"no config.json; add it"}"#.into());
    world.object.spec.model.source.image.as_mut().unwrap().reference = "localhost/weights:2".into();
    world.settle(none);
    assert_eq!(world.condition(VALID).1, reason::MODEL_REJECTED);
    assert_eq!(world.condition(coterie_api::condition::SERVING).0, "True");
    world.verdict = World::new(1).verdict;
    world.object.spec.model.source.image.as_mut().unwrap().reference = "localhost/weights:3".into();
    world.quiesce(none);
    assert_eq!(
        inspections(&mut world),
        "+smol-inspect -smol-inspect +smol-inspect",
        "no back-off of another source"
    );
    world.settle(none);
    assert_eq!(world.condition(READY).0, "True");
}

#[test]
fn a_process_that_fails_without_a_word_is_no_verdict_on_the_model() {
    let mut world = World::new(1);
    world.verdict = (137, String::new());
    world.quiesce(none);
    world.end_inspection(0);
    world.quiesce(none);
    let (status, reason, message) = world.condition(VALID);
    assert_eq!((status.as_str(), reason.as_str()), ("False", reason::INSPECT_FAILED));
    assert!(message.contains("ended with exit code 137; see kubectl logs smol-inspect-"), "{message}");
}

#[test]
fn a_report_that_cannot_be_read_is_a_failure() {
    let mut world = World::new(1);
    world.verdict = (0, r#"{"architecture":"Mixtral"#.into());
    world.quiesce(none);
    world.end_inspection(0);
    world.quiesce(none);
    let (_, reason, message) = world.condition(VALID);
    assert_eq!(reason, reason::INSPECT_FAILED);
    assert!(message.contains("left no report"), "{message}");
}

#[test]
fn a_missing_claim_makes_no_pod_and_heals_when_it_appears() {
    let mut world = World::new(1);
    claim(&mut world, ClaimState::Missing);
    let plan = world.quiesce(none);
    assert_eq!(plan.look_again_after, Some(SignedDuration::from_secs(10)));
    assert_eq!(world.done(), "");
    let (_, reason, message) = world.condition(READY);
    assert_eq!(reason, reason::CLAIM_NOT_FOUND);
    assert!(
        message.starts_with("PersistentVolumeClaim weights does not exist in namespace chat; create it"),
        "{message}"
    );
    world.claim = Some(ClaimState::Unbound);
    world.settle(none);
    assert_eq!(world.condition(READY).0, "True");
}

#[test]
fn a_missing_image_is_named_and_the_pod_left_to_the_kubelet() {
    let mut world = World::new(1);
    world.quiesce(none);
    world.wait_for(0, "ErrImagePull", "rpc error: not found.");
    world.quiesce(none);
    let first = world.condition(VALID);
    assert_eq!((first.0.as_str(), first.1.as_str()), ("False", reason::IMAGE_NOT_PULLED));
    assert!(
        first.2.contains("cannot pull an image: rpc error: not found; check model.source.image.reference"),
        "{}",
        first.2
    );
    world.wait_for(
        0,
        "ImagePullBackOff",
        "Back-off pulling image \"x\": ErrImagePull: rpc error: not found.",
    );
    let (plan, written) = world.reconcile();
    assert!(plan.actions.is_empty() && !written, "the two reasons of the kubelet read alike");
    world.settle(none);
    assert_eq!(world.condition(READY).0, "True");
}

#[test]
fn a_runtime_image_that_cannot_be_pulled_is_left_behind_by_an_upgrade() {
    let mut world = World::new(1);
    world.quiesce(none);
    world.wait_for(0, "ErrImageNeverPull", "not on the node");
    world.quiesce(none);
    world.log.clear();
    world.settings.runtime_image = "localhost/coterie:2".into();
    world.quiesce(none);
    assert_eq!(inspections(&mut world), "-smol-inspect");
    world.settle(none);
    assert_eq!(world.condition(READY).0, "True");
}

#[test]
fn no_node_for_the_inspect_pod() {
    let mut world = World::new(1);
    world.quiesce(none);
    world.unschedulable(0, "0/1 nodes are available: 1 node(s) had untolerated taint.");
    world.quiesce(none);
    let (_, reason, message) = world.condition(VALID);
    assert_eq!(reason, reason::INSPECT_NOT_PLACED);
    assert!(
        message.contains("untolerated taint; free resources, add a node, or change template"),
        "{message}"
    );
}

#[test]
fn an_inspect_pod_that_waits_is_made_anew_by_a_new_template_and_one_that_works_is_not() {
    let mut world = World::new(1);
    let on = |disk: &str| BTreeMap::from([("disk".to_owned(), disk.to_owned())]);
    world.object.spec.template.node_selector = on("tape");
    world.quiesce(none);
    world.unschedulable(0, "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.");
    world.quiesce(none);
    world.done();
    world.object.spec.template.node_selector = on("ssd");
    world.quiesce(none);
    assert_eq!(inspections(&mut world), "-smol-inspect");
    world.remove(0);
    world.quiesce(none);
    assert_eq!(inspections(&mut world), "+smol-inspect");

    world.set_ready(0, false);
    world.object.spec.template.node_selector.clear();
    world.quiesce(none);
    assert_eq!(inspections(&mut world), "");
    world.settle(none);
    assert_eq!(world.condition(READY).0, "True");
}

#[test]
fn a_name_that_a_predecessor_still_has_is_waited_for() {
    let world = World::new(1);
    let mut observed = world.observed();
    let hash = super::source_hash(&world.deployment());
    observed.taken_names.insert(crate::objects::inspect_pod_name("smol", &hash));
    let plan = crate::plan::plan(&world.deployment(), &observed, world.now);
    assert!(plan.actions.iter().all(|action| action.object().starts_with("Service")));
    assert!(plan.look_again_after.is_some());
}
