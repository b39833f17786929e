//! What holds in every state, however it came about, and that every state leads to the one that was asked for.

use crate::observed::{ObservedExperts, ObservedPod, Phase, Role};
use crate::plan::replica::{Replica, replicas};
use crate::plan::{Action, Annotation, Plan};
use crate::world::World;
use coterie_api::condition::READY;
use coterie_api::launch::Quantization;
use coterie_api::name::LABEL_SERVING;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Something that happens to the cluster, to the spec, or to the operator. Indices are taken modulo the number of pods.
#[derive(Clone, Debug)]
enum Happening {
    ConfigMapDeleted(usize),
    Crash(usize),
    DeletedByForce(usize),
    DeletedByUser(usize),
    DrainChanged(u32),
    Evicted(usize),
    ImageMissing(usize),
    Killed(usize),
    LoadUntold(bool),
    Lives(usize),
    OperatorUpgraded(u8),
    QuantizationChanged(Option<Quantization>),
    RanksChanged(u32),
    Reconcile,
    Requests(usize, u64),
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
        1 => pod.clone().prop_map(ConfigMapDeleted),
        2 => pod.clone().prop_map(Crash),
        1 => pod.clone().prop_map(DeletedByForce),
        2 => pod.clone().prop_map(DeletedByUser),
        1 => (1..4_u32).prop_map(|minutes| DrainChanged(minutes * 60)),
        2 => pod.clone().prop_map(Evicted),
        1 => pod.clone().prop_map(ImageMissing),
        3 => (0..4_usize).prop_map(Killed),
        1 => any::<bool>().prop_map(LoadUntold),
        12 => pod.clone().prop_map(Lives),
        1 => (1..3_u8).prop_map(OperatorUpgraded),
        2 => quantization.prop_map(QuantizationChanged),
        3 => (1..4_u32).prop_map(RanksChanged),
        8 => Just(Reconcile),
        3 => (pod.clone(), 0..3_u64).prop_map(|(pod, requests)| Requests(pod, requests)),
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
            ConfigMapDeleted(index) => {
                let count = self.config_maps.len().max(1);
                self.config_maps = std::mem::take(&mut self.config_maps)
                    .into_iter()
                    .enumerate()
                    .filter_map(|(at, map)| (at != index % count).then_some(map))
                    .collect();
            }
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
            LoadUntold(untold) => self.untold = untold,
            Requests(index, requests) => pick(index, self).into_iter().for_each(|index| {
                let uid = ObservedPod::from(&self.pods[index]).uid;
                self.requests.insert(uid, requests);
            }),
            Lives(index) => pick(index, self).into_iter().for_each(|index| {
                let pod = ObservedPod::from(&self.pods[index]);
                match (pod.terminating, pod.role, pod.phase) {
                    (Some(_), ..) => self.remove(index),
                    (_, _, Phase::Failed | Phase::Succeeded) => {}
                    (_, Some(Role::Inspect), _) => self.end_inspection(index),
                    _ if pod.ready => _ = self.follow_map(index),
                    _ => self.set_ready(index, true),
                }
            }),
            OperatorUpgraded(version) => self.settings.runtime_image = format!("localhost/coterie:{version}"),
            QuantizationChanged(quantization) => self.object.spec.model.quantization = quantization,
            RanksChanged(ranks) => self.object.spec.ranks = Some(ranks),
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
    let width = plan.rollout.width;
    let observed = world.observed();
    let mut deleted: BTreeSet<&str> = BTreeSet::new();
    let mut created: BTreeMap<String, u32> = BTreeMap::new();
    // Whether it serves from now on.
    let mut changed: BTreeMap<&str, bool> = BTreeMap::new();
    for action in &plan.actions {
        match action {
            Action::DeletePod(deletion) => {
                let pod = observed
                    .pods
                    .iter()
                    .find(|pod| pod.name == deletion.name)
                    .expect("deletes what is there");
                let is_overdue = pod.terminating.is_some_and(|end| overdue(end) <= world.now);
                assert!(
                    pod.terminating.is_none() || deletion.grace_seconds == Some(0) && is_overdue,
                    "deletes {} again",
                    pod.name
                );
                assert!(deleted.insert(&deletion.name), "deletes {} twice", pod.name);
            }
            Action::CreatePod(pod) => {
                let name = pod.metadata.name.clone().expect("a pod has a name");
                assert!(!observed.pods.iter().any(|pod| pod.name == name), "{name} is there");
                let pod = ObservedPod::from(pod.as_ref());
                if let Some(replica) = pod.replica {
                    assert!(created.insert(name, replica).is_none(), "makes a pod twice");
                    let there = observed.experts.iter().find(|there| there.replica == replica);
                    assert!(width == 1 || there.is_some_and(|there| there.map.is_some()), "without a map");
                }
            }
            Action::ApplyConfigMap(next) => check_map(world, plan, next),
            Action::Annotate(Annotation { pod, labels, .. }) => {
                if let Some(serves) = labels.get(LABEL_SERVING) {
                    assert!(changed.insert(pod, serves == "true").is_none(), "cordons {pod} and recalls it");
                }
            }
            _ => {}
        }
    }
    let ranks: Vec<&ObservedPod> = observed.pods.iter().filter(|pod| pod.role == Some(Role::Rank)).collect();
    let is_live = |pod: &&ObservedPod| {
        pod.terminating.is_none() && !matches!(pod.phase, Phase::Failed | Phase::Succeeded)
    };
    let live: Vec<&ObservedPod> = ranks.iter().copied().filter(is_live).collect();
    let cordons = |name: &str| changed.get(name).copied();
    let serves = |pod: &&ObservedPod| cordons(&pod.name).unwrap_or(pod.cordoned.is_none());
    let served: Vec<&ObservedPod> = live.iter().copied().filter(|pod| pod.cordoned.is_none()).collect();
    let left: Vec<&ObservedPod> =
        live.iter().copied().filter(|pod| !deleted.contains(pod.name.as_str())).filter(serves).collect();
    let revision = plan.rollout.revision.as_deref();
    let is_updated = |replica: &&Replica| Some(replica.revision) == revision;
    let is_ready = |replica: &&Replica| {
        if is_updated(replica) { replica.is_complete(width) } else { replica.ready_ranks() > 0 }
    };

    // Availability: of the replicas that are ready, our own doing leaves as many as are asked for.
    let ready = replicas(&served).iter().filter(is_ready).count();
    let still_ready = replicas(&left).iter().filter(is_ready).count();
    assert!(
        still_ready >= ready.min(wanted),
        "{still_ready} of {ready} ready replicas are left, {wanted} are asked for"
    );

    if revision.is_none() {
        assert!(created.is_empty(), "makes ranks from nothing");
        return;
    }
    let kept = replicas(&left).iter().filter(is_updated).count();
    let begun: BTreeSet<u32> = created
        .values()
        .copied()
        .filter(|number| !live.iter().any(|pod| pod.replica == Some(*number)))
        .collect();
    assert!(begun.is_empty() || kept + begun.len() <= wanted, "makes more than is asked for");
    let whole =
        |number: &u32| created.values().filter(|replica| *replica == number).count() == width as usize;
    assert!(begun.iter().all(whole), "begins a part of a replica");

    // Start: those that load at the same time are few, however many are asked for.
    let starting = live.iter().filter(|pod| Some(pod.revision.as_str()) == revision && !pod.ready).count();
    assert!(created.is_empty() || starting + created.len() <= 25, "starts too many at once");

    // Surge: beside another revision there is at most one replica too many, those that drain included.
    let live = replicas(&live);
    let old = live.iter().filter(|replica| !is_updated(replica)).count();
    let ending = |pod: &&&ObservedPod| {
        let is_known = live.iter().any(|r| r.number == pod.replica && r.revision == pod.revision);
        let ends = pod.terminating.is_some_and(|end| overdue(end) > world.now);
        ends && Some(pod.revision.as_str()) != revision && !is_known
    };
    let draining: BTreeSet<_> = ranks.iter().filter(ending).map(|pod| (pod.replica, &pod.revision)).collect();
    if old + draining.len() > 0 && !begun.is_empty() {
        assert!(kept + old + draining.len() + begun.len() <= wanted + 1, "surges by more than one");
    }
}

fn overdue(end: Timestamp) -> Timestamp {
    end + SignedDuration::from_secs(30)
}

/// A map only follows one that every ready rank goes by, so that none has to hold the experts of three.
fn check_map(world: &World, plan: &Plan, next: &ConfigMap) {
    let next = ObservedExperts::of(next.clone(), "5e1f").expect("a label");
    let observed = world.observed();
    let before = observed.experts.iter().find(|there| there.replica == next.replica).expect("is there");
    let (Some(before), Some(next_map)) = (&before.map, &next.map) else { return };
    if before.version() == next_map.version() {
        assert_eq!(before, next_map, "other places under the same version");
        return;
    }
    let stays = |pod: &&ObservedPod| {
        let rank = pod.rank_or_only();
        pod.ready
            && pod.terminating.is_none()
            && pod.replica == Some(next.replica)
            && Some(&pod.revision) == plan.rollout.revision.as_ref()
            && rank < plan.rollout.width
            && (rank as usize) < before.ranks()
    };
    for pod in observed.pods.iter().filter(stays) {
        let routing = observed.reports.get(&pod.uid).map_or(0, |report| report.routing);
        assert!(routing >= before.version(), "{} does not go by the map before", pod.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_state_is_safe_and_leads_to_what_was_asked(
        replicas in 0..5_i32,
        ranks in prop_oneof![2 => Just(None), 2 => (1..4_u32).prop_map(Some)],
        happenings in proptest::collection::vec(happening(), 0..60),
    ) {
        let mut world = World::new(replicas);
        world.object.spec.ranks = ranks;
        for happening in happenings {
            // Half of the worlds know nothing of several ranks.
            if ranks.is_none() && matches!(happening, Happening::RanksChanged(_)) {
                continue;
            }
            world.suffer(happening);
            check(&world, &world.plan());
            world.reconcile();
        }
        world.object.spec.model.context_length = None;
        world.requests.clear();
        world.settle(check);

        let deployment = world.deployment();
        let observed = world.observed();
        let plan = world.plan();
        prop_assert_eq!(&plan.actions, &[]);
        let width = deployment.ranks.unwrap_or(1) as usize;
        prop_assert_eq!(observed.pods.len(), deployment.replicas * width, "no pod too many, and no inspect pod");
        prop_assert_eq!(observed.experts.len(), if width > 1 { deployment.replicas } else { 0 });
        for there in &observed.experts {
            let map = there.map.as_ref().expect("can be read");
            prop_assert_eq!(map.ranks(), width);
            for pod in observed.pods.iter().filter(|pod| pod.replica == Some(there.replica)) {
                prop_assert_eq!(pod.told.experts.as_str(), there.content());
                prop_assert_eq!(observed.reports[&pod.uid].routing, map.version());
            }
        }
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
