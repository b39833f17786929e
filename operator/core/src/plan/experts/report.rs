//! What status tells of the experts of one replica.

use super::load::balance;
use super::places::possible;
use super::{Shape, View, all_ready, routes_by, stray};
use crate::objects::ExpertsConfig;
use crate::observed::{ObservedPod, RankReport};
use coterie_api::deployment::status::{ExpertMove, MoveOutcome, ReplicaExpertsStatus};
use coterie_api::expert_map::ExpertMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Numbers change only when something happens, and the balance once in a while.
pub(super) fn status(view: &View, config: &ExpertsConfig, trouble: Option<String>) -> ReplicaExpertsStatus {
    let ExpertsConfig { map, moved, .. } = config;
    let before = view.observed.status.experts.as_ref();
    let number = i32::try_from(view.number).unwrap_or(i32::MAX);
    let before = before.and_then(|it| it.replicas.iter().find(|it| it.replica == number));
    let load = view.observed.loads.get(&view.number).filter(|load| load.version == map.version());
    let reports: Vec<&RankReport> =
        view.pods().iter().filter_map(|pod| view.observed.reports.get(&pod.uid)).collect();
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let version = |version: u64| i64::try_from(version).unwrap_or(i64::MAX);
    let in_map = |pod: &&&ObservedPod| (pod.rank_or_only() as usize) < map.ranks();
    let routing = view.pods().iter().filter(in_map);
    let routing = routing.filter(|pod| routes_by(pod, map.version(), view.observed)).count();
    let trouble = trouble.or_else(|| stray::told(view, map));
    let trouble = trouble.or_else(|| reports.iter().find_map(|report| report.trouble.clone()));
    let outcome = match &trouble {
        _ if view.is_settled(map) => MoveOutcome::Done,
        Some(_) => MoveOutcome::Troubled,
        None => MoveOutcome::Moving,
    };
    let started = all_ready(view, map) || before.is_some_and(|before| before.started);
    let lost = if started { lost(view, map) } else { 0 };
    let trouble = not_taken_over(view, lost).or(trouble);
    ReplicaExpertsStatus {
        replica: number,
        ranks: count(map.ranks()),
        version: version(map.version()),
        loaded: count(reports.iter().filter(|report| report.loaded >= map.version()).count()),
        routing: count(routing),
        started,
        copies: count(map.copies()),
        fewer_copies: fewer_copies(view, map),
        balance: load
            .and_then(|load| balance(map, &load.tokens))
            .or_else(|| before.filter(|it| it.version == version(map.version()))?.balance.clone()),
        lost: count(lost),
        adopted: count(
            reports.iter().fold(0, |sum: usize, report| sum.saturating_add(report.adopted as usize)),
        ),
        trouble,
        last_move: moved.as_ref().map(|moved| ExpertMove {
            time: Time(moved.time),
            slots: count(moved.slots),
            why: moved.why.clone(),
            outcome,
            balance_before: moved.balance.clone(),
        }),
    }
}

/// What is asked for and what is held, where that is less, and what would change it.
fn fewer_copies(view: &View, map: &ExpertMap) -> Option<String> {
    let Shape { layers, experts } = view.target.shape;
    let (ranks, redundant, held) = (map.ranks(), view.target.redundant, map.copies());
    let asked = layers * redundant;
    if held >= asked {
        return None;
    }
    let distinct = experts * ranks.saturating_sub(1);
    let why = match possible(view, ranks) {
        Some(possible) if possible > held => {
            format!("the next expert map has {possible}, and follows when every ready rank goes by this one")
        }
        _ if redundant > distinct => format!(
            "each of {ranks} ranks has every expert; set experts.redundant to {distinct}, or ranks to {}",
            1 + redundant.div_ceil(experts)
        ),
        _ => format!(
            "one rank has memory for {} slots of experts; give ranks more memory, add ranks, or lower experts.redundant",
            view.target.slots
        ),
    };
    Some(format!("{held} of {asked} copies are held: {why}"))
}

/// That requests wait, where memory is limited and the ready ranks may not take over all that is lost.
fn not_taken_over(view: &View, lost: usize) -> Option<String> {
    let limit = view.target.adopt_limit? as usize;
    let ready = view.pods().iter().filter(|pod| pod.ready).count();
    let room = limit.saturating_mul(ready);
    (lost > room).then(|| {
        format!(
            "within template.resources.limits.memory ready ranks have room for {room} of the {lost} experts that are \
             lost: requests that need others wait until the lost rank is back; raise that limit, or set \
             experts.redundant"
        )
    })
}

/// Experts, all layers together, that no ready rank was given. A replica of which no rank is ready lost nothing: it
/// does not serve yet, or no more.
fn lost(view: &View, map: &ExpertMap) -> usize {
    let mut ready = vec![false; map.ranks()];
    for pod in view.pods().iter().filter(|pod| pod.ready) {
        if let Some(ready) = ready.get_mut(pod.rank_or_only() as usize) {
            *ready = true;
        }
    }
    if !ready.contains(&true) || !ready.contains(&false) {
        return 0;
    }
    let of_layer = |layer| {
        let is_lost = |expert: &usize| !map.holders(layer, *expert).any(|rank| ready[rank]);
        (0..map.experts()).filter(is_lost).count()
    };
    (0..map.layers()).map(of_layer).sum()
}
