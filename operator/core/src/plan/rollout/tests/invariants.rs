//! What holds in every state, however it came about, and that every state leads to the one that was asked for.

use crate::observed::{ObservedPod, Phase, Role};
use crate::plan::{Action, Plan};
use crate::world::World;
use coterie_api::condition::READY;
use coterie_api::launch::Quantization;
use jiff::SignedDuration;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Something that happens to the cluster, to the spec, or to the operator. Indices are taken modulo the number of pods.
#[derive(Clone, Debug)]
enum Happening {
    Crash(usize),
    DeletedByForce(usize),
    DeletedByUser(usize),
    DrainChanged(u32),
    Evicted(usize),
    ImageMissing(usize),
    Killed(usize),
    Lives(usize),
    OperatorUpgraded(u8),
    QuantizationChanged(Option<Quantization>),
    Reconcile,
    Restarted(u8),
    Scaled(i32),
    StatusLost,
    TimePasses(i64),
    TooLong(bool),
    Unready(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let pod = 0..16_usize;
    let quantization =
        prop_oneof![Just(None), Just(Some(Quantization::None)), Just(Some(Quantization::Int8))];
    prop_oneof![
        2 => pod.clone().prop_map(Crash),
        1 => pod.clone().prop_map(DeletedByForce),
        2 => pod.clone().prop_map(DeletedByUser),
        1 => (1..4_u32).prop_map(|minutes| DrainChanged(minutes * 60)),
        2 => pod.clone().prop_map(Evicted),
        1 => pod.clone().prop_map(ImageMissing),
        3 => (0..4_usize).prop_map(Killed),
        12 => pod.clone().prop_map(Lives),
        1 => (1..3_u8).prop_map(OperatorUpgraded),
        2 => quantization.prop_map(QuantizationChanged),
        8 => Just(Reconcile),
        1 => (0..3_u8).prop_map(Restarted),
        3 => (0..5_i32).prop_map(Scaled),
        1 => Just(StatusLost),
        2 => (0..700_i64).prop_map(TimePasses),
        1 => any::<bool>().prop_map(TooLong),
        2 => pod.prop_map(Unready),
    ]
}

impl World {
    fn suffer(&mut self, happening: Happening) {
        let pick = |index: usize, of: &World| (!of.pods.is_empty()).then(|| index % of.pods.len());
        let rank = |index: usize, of: &World| {
            let index = pick(index, of)?;
            let pod = ObservedPod::from(&of.pods[index]);
            let lives = !matches!(pod.phase, Phase::Failed | Phase::Succeeded);
            (pod.role == Some(Role::Rank) && lives).then_some(index)
        };
        use Happening::*;
        match happening {
            Crash(index) => rank(index, self).into_iter().for_each(|index| self.crash(index, 1, "")),
            DeletedByForce(index) => pick(index, self).into_iter().for_each(|index| self.remove(index)),
            DeletedByUser(index) => pick(index, self).into_iter().for_each(|index| self.delete(index)),
            DrainChanged(seconds) => self.object.spec.rollout.drain_seconds = seconds,
            Evicted(index) => rank(index, self).into_iter().for_each(|index| self.evict(index)),
            ImageMissing(index) => rank(index, self).into_iter().for_each(|index| {
                self.set_ready(index, false);
                self.wait_for(index, "ErrImagePull", "not found");
            }),
            Killed(writes) => self.reconcile_until_killed(writes),
            Lives(index) => pick(index, self).into_iter().for_each(|index| {
                let pod = ObservedPod::from(&self.pods[index]);
                match (pod.terminating, pod.role, pod.phase) {
                    (Some(_), ..) => self.remove(index),
                    (_, _, Phase::Failed | Phase::Succeeded) => {}
                    (_, Some(Role::Inspect), _) => self.end_inspection(index),
                    _ => self.set_ready(index, true),
                }
            }),
            OperatorUpgraded(version) => self.settings.runtime_image = format!("localhost/coterie:{version}"),
            QuantizationChanged(quantization) => self.object.spec.model.quantization = quantization,
            Reconcile => {}
            Restarted(value) => {
                let restart = ("coterie.dev/restart".to_owned(), value.to_string());
                self.object.metadata.annotations = Some([restart].into());
            }
            Scaled(replicas) => self.object.spec.replicas = replicas,
            StatusLost => self.object.status = None,
            TimePasses(seconds) => self.now += SignedDuration::from_secs(seconds),
            TooLong(is) => self.object.spec.model.context_length = is.then_some(1_000_000),
            Unready(index) => rank(index, self).into_iter().for_each(|index| self.set_ready(index, false)),
        }
    }
}

/// What no plan may break.
pub(super) fn check(world: &World, plan: &Plan) {
    let wanted = world.deployment().replicas;
    let observed = world.observed();
    let mut deleted: BTreeSet<&str> = BTreeSet::new();
    let mut created: BTreeSet<String> = BTreeSet::new();
    for action in &plan.actions {
        match action {
            Action::DeletePod(deletion) => {
                let pod = observed
                    .pods
                    .iter()
                    .find(|pod| pod.name == deletion.name)
                    .expect("deletes what is there");
                assert!(pod.terminating.is_none(), "deletes {} again", pod.name);
                assert!(deleted.insert(&deletion.name), "deletes {} twice", pod.name);
            }
            Action::CreatePod(pod) => {
                let name = pod.metadata.name.clone().expect("a pod has a name");
                assert!(!observed.pods.iter().any(|pod| pod.name == name), "{name} is there");
                let is_rank = pod.metadata.labels.as_ref().is_some_and(|l| l["coterie.dev/role"] == "rank");
                assert!(!is_rank || created.insert(name), "makes a pod twice");
            }
            Action::ApplyService(_) => {}
        }
    }
    let ranks: Vec<&ObservedPod> = observed.pods.iter().filter(|pod| pod.role == Some(Role::Rank)).collect();
    let live = |pod: &&&ObservedPod| {
        pod.terminating.is_none() && !matches!(pod.phase, Phase::Failed | Phase::Succeeded)
    };
    let is_deleted = |pod: &ObservedPod| deleted.contains(pod.name.as_str());

    // Availability: of the ranks that are ready, our own doing leaves as many as are asked for.
    let ready = ranks.iter().filter(live).filter(|pod| pod.ready).count();
    let taken = ranks.iter().filter(live).filter(|pod| pod.ready && is_deleted(pod)).count();
    assert!(
        taken == 0 || ready - taken >= wanted,
        "{taken} of {ready} ready ranks are taken, {wanted} are asked for"
    );

    let Some(revision) = &plan.rollout.revision else {
        assert!(created.is_empty(), "makes ranks from nothing");
        return;
    };
    let is_updated = |pod: &ObservedPod| pod.revision == *revision;
    let kept = ranks.iter().filter(live).filter(|pod| is_updated(pod) && !is_deleted(pod)).count();
    assert!(created.is_empty() || kept + created.len() <= wanted, "makes more than is asked for");

    // Start: those that load at the same time are few, however many are asked for.
    let starting = ranks.iter().filter(live).filter(|pod| is_updated(pod) && !pod.ready).count();
    assert!(created.is_empty() || starting + created.len() <= 25, "starts too many at once");

    // Surge: beside another revision there is at most one rank too many, those that drain included.
    let old = ranks.iter().filter(live).filter(|pod| !is_updated(pod)).count();
    let overdue = |pod: &ObservedPod| {
        pod.terminating.is_some_and(|end| end + SignedDuration::from_secs(30) <= world.now)
    };
    let draining =
        ranks.iter().filter(|pod| pod.terminating.is_some() && !is_updated(pod) && !overdue(pod)).count();
    if old + draining > 0 && !created.is_empty() {
        assert!(kept + old + draining + created.len() <= wanted + 1, "surges by more than one");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_state_is_safe_and_leads_to_what_was_asked(
        replicas in 0..5_i32,
        happenings in proptest::collection::vec(happening(), 0..60),
    ) {
        let mut world = World::new(replicas);
        for happening in happenings {
            world.suffer(happening);
            check(&world, &world.plan());
            world.reconcile();
        }
        world.object.spec.model.context_length = None;
        world.settle(check);

        let deployment = world.deployment();
        let observed = world.observed();
        let plan = world.plan();
        prop_assert_eq!(&plan.actions, &[]);
        prop_assert_eq!(observed.pods.len(), deployment.replicas, "no pod too many, and no inspect pod");
        let revision = plan.rollout.revision.unwrap();
        for pod in &observed.pods {
            prop_assert!(pod.ready && pod.terminating.is_none() && pod.revision == revision);
        }
        let expected = if deployment.replicas > 0 { "True" } else { "False" };
        prop_assert_eq!(world.condition(READY).0, expected);
        let (_, written) = world.reconcile();
        prop_assert!(!written, "a steady state writes nothing");
    }
}
