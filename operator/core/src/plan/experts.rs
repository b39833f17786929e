//! Where the experts of each replica are, and what its ranks are told of it.
//!
//! A replica of several ranks has a ConfigMap with its expert map and its peers, from before its first rank on. A map is
//! never changed, only followed by one with a higher version, and only while every ready rank routes by the one before:
//! a rank holds the experts of at most two maps. The next map comes
//! - when a further rank is ready: it then gets its share;
//! - when fewer ranks are asked for: those beyond get nothing, and go once all others route by that map;
//! - when another number of copies is asked for;
//! - when the load on the experts calls for it.
//!
//! Replicas of an older revision keep what they have.

mod load;
mod next;
mod places;
mod report;
mod stray;

use super::certificates;
use super::replica::{Replica, replicas};
use super::rollout::{RolloutPlan, Target};
use super::{Action, Annotation, Steps};
use crate::objects::{Told, config_map_shows, experts_config_map, experts_name};
use crate::observed::{Observed, ObservedCertificates, ObservedExperts, ObservedPod, Phase, Role};
use crate::validate::Deployment;
use coterie_api::deployment::status::ReplicaExpertsStatus;
use coterie_api::expert_map::{EXPERTS_LIMIT, ExpertMap, LAYERS_LIMIT, VERSION_LIMIT};
use coterie_api::launch::Inspection;
use jiff::Timestamp;
use next::{Next, next};
use std::collections::{BTreeMap, BTreeSet};

/// Where the experts are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExpertsPlan {
    /// Of each replica of several ranks and of the current revision, by number.
    pub replicas: Vec<ReplicaExpertsStatus>,
    /// Whether somebody else has the name of the Secret of the exchange.
    pub foreign_secret: bool,
}

/// What the map of a replica must be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Layers with experts.
    pub layers: usize,
    /// Experts of a layer.
    pub experts: usize,
}

impl Shape {
    /// Of the weights.
    pub fn of(inspection: &Inspection) -> Self {
        let layers = inspection.expert_layers.unwrap_or(inspection.layers);
        Self { layers: layers as usize, experts: inspection.experts as usize }
    }

    /// Whether there can be a map of so many.
    pub fn is_possible(self) -> bool {
        (1..=LAYERS_LIMIT).contains(&self.layers) && (1..=EXPERTS_LIMIT).contains(&self.experts)
    }
}

/// One replica, as far as its experts are concerned.
struct View<'a> {
    number: u32,
    deployment: &'a Deployment,
    target: &'a Target,
    observed: &'a Observed,
    now: Timestamp,
    /// Its ConfigMap.
    there: Option<&'a ObservedExperts>,
    /// Its live pods of the current revision.
    live: Option<Replica<'a>>,
}

impl<'a> View<'a> {
    /// The map that its ranks go by, if it is one of this model and another can follow.
    fn map(&self) -> Option<&'a ExpertMap> {
        let map = self.there?.map.as_ref();
        map.filter(|map| is_of(map, self.target.shape) && map.can_be_followed())
    }

    fn pods(&self) -> &[&'a ObservedPod] {
        self.live.as_ref().map_or(&[], |replica| &replica.pods)
    }

    /// Whether every ready rank that counts routes by `map`.
    fn is_settled(&self, map: &ExpertMap) -> bool {
        let width = u32::try_from(map.ranks()).unwrap_or(u32::MAX).min(self.target.ranks);
        let mut ready = self.pods().iter().filter(|pod| pod.ready && pod.rank_or_only() < width);
        ready.all(|pod| routes_by(pod, map.version(), self.observed))
    }
}

/// Plans for every replica of the current revision. Nothing is planned without a target.
pub(super) fn plan(
    deployment: &Deployment,
    target: Option<&Target>,
    rollout: &RolloutPlan,
    observed: &Observed,
    now: Timestamp,
    steps: &mut Steps,
) -> ExpertsPlan {
    let Some(target) = target else { return ExpertsPlan::default() };
    let several = target.ranks > 1;
    let missing: &[u32] = if several { &rollout.missing } else { &[] };
    for there in observed.experts.iter().filter(|there| there.owned) {
        let has_pods = observed.pods.iter().any(|pod| pod.replica == Some(there.replica));
        if !has_pods && !missing.contains(&there.replica) {
            steps.delete_config_map(&there.object, "its replica is gone");
        }
    }
    if !several {
        return ExpertsPlan::default();
    }
    let foreign_secret = certificates::plan(deployment, observed, now, steps);
    let live: Vec<&ObservedPod> = observed.pods.iter().filter(|pod| is_live(pod)).collect();
    let live = replicas(&live);
    let mut found = Vec::new();
    for number in rollout.kept.iter().chain(missing).copied() {
        let view = View {
            number,
            deployment,
            target,
            observed,
            now,
            there: observed.experts.iter().find(|there| there.replica == number && there.owned),
            live: live
                .iter()
                .find(|replica| replica.number == Some(number) && replica.revision == target.revision)
                .cloned(),
        };
        found.extend(replica(&view, steps));
    }
    ExpertsPlan { replicas: found, foreign_secret }
}

/// Whether all ranks are ready and in the map.
fn all_ready(view: &View, map: &ExpertMap) -> bool {
    map.ranks() == view.target.ranks as usize
        && view.live.as_ref().is_some_and(|replica| replica.is_complete(view.target.ranks))
}

/// Its ConfigMap as it should be, and its pods told of it.
fn replica(view: &View, steps: &mut Steps) -> Option<ReplicaExpertsStatus> {
    let Next { config, trouble } = next(view, steps)?;
    let ranks = (0..view.target.ranks).chain(named_pods(view)).collect::<BTreeSet<u32>>();
    let wanted = experts_config_map(view.deployment, view.number, &config, &ranks);
    match view.there {
        None => steps.push(Action::CreateConfigMap(Box::new(wanted))),
        Some(there) if config_map_shows(&there.object, &wanted) => {
            tell(view, there, steps);
            stray::replace(view, &config.map, steps);
        }
        Some(there) => {
            let mut wanted = wanted;
            // So that one that was made anew by somebody else meanwhile is left alone.
            wanted.metadata.uid.clone_from(&there.object.metadata.uid);
            steps.push(Action::ApplyConfigMap(Box::new(wanted)));
        }
    }
    Some(report::status(view, &config, trouble))
}

/// Ranks that have a pod, also those that end: they finish their requests with the others' experts.
fn named_pods<'a>(view: &'a View) -> impl Iterator<Item = u32> + 'a {
    let pods = view.observed.pods.iter().filter(|pod| pod.role == Some(Role::Rank));
    let own = pods.filter(|pod| pod.replica == Some(view.number) && pod.revision == view.target.revision);
    own.filter_map(|pod| pod.rank)
}

fn tell(view: &View, there: &ObservedExperts, steps: &mut Steps) {
    let Some(told) = told_by(there, view.observed) else { return };
    for pod in view.pods().iter().filter(|pod| pod.told != told) {
        steps.annotate(Annotation {
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            resource_version: pod.resource_version.clone(),
            labels: BTreeMap::new(),
            annotations: told.annotations().into_iter().map(|(key, value)| (key, Some(value))).collect(),
        });
    }
}

/// What the files of a rank of this replica say, once all of them are there; of a replica that has no rank yet, only
/// if they are about as many ranks as it gets.
pub(super) fn told(target: &Target, replica: u32, begins: bool, observed: &Observed) -> Option<Told> {
    let there = observed.experts.iter().find(|there| there.replica == replica && there.owned)?;
    let map = there.map.as_ref()?;
    let fits = is_of(map, target.shape) && (!begins || map.ranks() == target.ranks as usize);
    told_by(there, observed).filter(|_| fits)
}

fn told_by(there: &ObservedExperts, observed: &Observed) -> Option<Told> {
    let ObservedCertificates::Ours { valid, next } = &observed.certificates else { return None };
    let times: Vec<String> = [valid, next].into_iter().flatten().map(ToString::to_string).collect();
    Some(Told { experts: there.content().to_owned(), certificates: times.join(" ") })
}

/// Whether somebody else's ConfigMap has the name of this replica's.
pub(super) fn name_is_taken(deployment: &Deployment, replica: u32, observed: &Observed) -> bool {
    let name = Some(experts_name(&deployment.name, replica));
    observed.experts.iter().any(|there| !there.owned && there.object.metadata.name == name)
}

/// The pods of a replica beyond `width` ranks: those that may go, because every rank that stays routes by a map
/// without them; and how many there are.
pub(super) fn handed_over<'a>(
    replica: &Replica<'a>,
    width: u32,
    observed: &Observed,
) -> (Vec<&'a ObservedPod>, usize) {
    let beyond: Vec<&ObservedPod> = replica.surplus(width).collect();
    let there = observed.experts.iter().find(|there| Some(there.replica) == replica.number && there.owned);
    let map = there.and_then(|there| there.map.as_ref()).filter(|map| map.ranks() <= width as usize);
    let follow = |map: &ExpertMap| {
        let stay = (0..width).map(|rank| replica.rank(rank));
        let mut routing = stay.map(|pod| pod.is_some_and(|pod| routes_by(pod, map.version(), observed)));
        routing.all(|routes| routes)
    };
    let count = beyond.len();
    if map.is_some_and(follow) { (beyond, count) } else { (Vec::new(), count) }
}

fn routes_by(pod: &ObservedPod, version: u64, observed: &Observed) -> bool {
    observed.reports.get(&pod.uid).is_some_and(|report| (version..VERSION_LIMIT).contains(&report.routing))
}

fn is_of(map: &ExpertMap, shape: Shape) -> bool {
    (map.layers(), map.experts()) == (shape.layers, shape.experts)
}

fn is_live(pod: &ObservedPod) -> bool {
    pod.role == Some(Role::Rank)
        && pod.terminating.is_none()
        && !matches!(pod.phase, Phase::Failed | Phase::Succeeded)
}

#[cfg(test)]
mod tests;
