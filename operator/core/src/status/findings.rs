//! What each condition says, from the plan and from what is seen.

use super::Applied;
use crate::objects::{endpoint, exchange_tls_name, service_names};
use crate::observed::quantity::readable;
use crate::observed::{Observed, ObservedPod, Phase, Role};
use crate::plan::capacity::CapacityPlan;
use crate::plan::rollout::{RolloutPlan, Step};
use crate::plan::trouble::{Kind, trouble};
use crate::plan::{Finding, Plan, State};
use crate::validate::Deployment;
use coterie_api::condition::{PLACED, ROLLED_OUT, SERVING, VALID, WEIGHTS_LOADED, reason};

pub(super) fn findings(
    deployment: &Deployment,
    observed: &Observed,
    plan: &Plan,
    applied: &Applied,
) -> Vec<(&'static str, Finding)> {
    let invalid = plan.capacity.as_ref().and_then(|capacity| capacity.invalid.clone());
    vec![
        (VALID, invalid.unwrap_or_else(|| plan.inspection.finding.clone())),
        (PLACED, placed(deployment, observed, plan)),
        (WEIGHTS_LOADED, weights_loaded(deployment, plan)),
        (SERVING, serving(deployment, plan)),
        (ROLLED_OUT, rolled_out(deployment, plan, applied)),
    ]
}

fn placed(deployment: &Deployment, observed: &Observed, plan: &Plan) -> Finding {
    let Some(capacity) = &plan.capacity else { return waiting_for_inspection() };
    if capacity.invalid.is_some() {
        return Finding::new(State::Unknown, reason::BLOCKED, "see condition Valid");
    }
    let wanted = deployment.replicas * plan.rollout.width as usize;
    let homeless: Vec<&ObservedPod> =
        live_ranks(observed, &plan.rollout).filter(|pod| pod.node.is_none()).collect();
    if let Some(trouble) = plan.rollout.trouble.as_ref().filter(|trouble| trouble.kind == Kind::Device) {
        return Finding::new(State::False, reason::DEVICE_UNUSABLE, &trouble.message);
    }
    let placed = plan.rollout.ranks.updated - homeless.len().min(plan.rollout.ranks.updated);
    if placed >= wanted && !capacity.is_hopeless() {
        return Finding::new(State::True, reason::PLACED, format!("{} placed", ranks(placed, "are", "is")));
    }
    if let Some(obstacle) = &capacity.unplaceable {
        return obstacle.clone();
    }
    if let Some(pod) = homeless.iter().find(|pod| pod.unschedulable.is_some()) {
        return if capacity.has_room {
            let message = trouble(pod).map_or_else(String::new, |trouble| trouble.message);
            Finding::new(State::False, reason::UNSCHEDULABLE, message)
        } else {
            no_room(homeless.len(), capacity, pod.unschedulable.as_deref().unwrap_or_default())
        };
    }
    let has_old_ranks = observed.pods.iter().any(|pod| {
        pod.role == Some(Role::Rank) && plan.rollout.revision.as_ref().is_some_and(|now| *now != pod.revision)
    });
    // The others are not the scheduler's yet: a rollout makes them one after another.
    let reason = match homeless.is_empty() && has_old_ranks {
        true => reason::PROGRESSING,
        false => reason::SCHEDULING,
    };
    Finding::new(State::False, reason, format!("ranks that have a node: {placed} of {wanted}; wait"))
}

/// A rank would fit an empty node, and the scheduler finds no room now.
fn no_room(homeless: usize, capacity: &CapacityPlan, scheduler: &str) -> Finding {
    let scheduler = scheduler.trim().trim_end_matches('.');
    let message = format!(
        "{} for room: one needs {}, and the most that is free on one node is {} (scheduler: {scheduler}); free \
         resources, add a node, or lower replicas",
        ranks(homeless, "wait", "waits"),
        readable(capacity.asked_of_device()),
        readable(capacity.free),
    );
    Finding::new(State::False, reason::NO_ROOM, message)
}

fn weights_loaded(deployment: &Deployment, plan: &Plan) -> Finding {
    let rollout = &plan.rollout;
    if deployment.replicas == 0 {
        return scaled_to_zero(deployment, "no weights are loaded");
    }
    if rollout.revision.is_none() {
        return blocked(plan);
    }
    if rollout.ranks.updated_ready > 0 {
        let holding = ranks(rollout.ranks.updated_ready, "hold", "holds");
        return Finding::new(State::True, reason::LOADED, format!("{holding} the weights"));
    }
    match &rollout.trouble {
        Some(trouble) if trouble.kind == Kind::Unplaced => no_node(),
        Some(trouble) => Finding::new(State::False, trouble.kind.reason(), &trouble.message),
        None => {
            let needed = plan.capacity.as_ref().map_or(0, |capacity| capacity.needed);
            let message =
                format!("ranks are starting and load up to {}; wait, or see kubectl logs", readable(needed));
            Finding::new(State::False, reason::LOADING, message)
        }
    }
}

fn serving(deployment: &Deployment, plan: &Plan) -> Finding {
    let rollout = &plan.rollout;
    let [client, _] = service_names(&deployment.name);
    if plan.foreign_services.contains(&client) {
        return service_taken(deployment, &client);
    }
    if rollout.ranks.ready > 0 {
        let answering = ranks(rollout.ranks.ready, "answer", "answers");
        let message = format!("{answering} at {}", endpoint(deployment));
        return Finding::new(State::True, reason::ANSWERING, message);
    }
    if deployment.replicas == 0 {
        return scaled_to_zero(deployment, "nothing answers");
    }
    match &rollout.trouble {
        Some(trouble) if trouble.kind != Kind::Unplaced => {
            Finding::new(State::False, trouble.kind.reason(), &trouble.message)
        }
        _ => Finding::new(
            State::False,
            reason::NO_RANK_READY,
            "no rank is ready; see the conditions before this one",
        ),
    }
}

fn rolled_out(deployment: &Deployment, plan: &Plan, applied: &Applied) -> Finding {
    let rollout = &plan.rollout;
    if let Some(refusal) = applied.refusals.first() {
        let message = format!(
            "the API server refused {}: {}; correct what it names, it is tried again",
            refusal.object,
            refusal.message.trim().trim_end_matches('.')
        );
        return Finding::new(State::False, reason::APPLY_FAILED, message);
    }
    if let Some(service) = plan.foreign_services.first() {
        return service_taken(deployment, service);
    }
    if plan.experts.foreign_secret {
        return secret_taken(deployment);
    }
    let Some(revision) = &rollout.revision else { return blocked(plan) };
    let wanted = deployment.replicas;
    let is_drained = rollout.step == Step::WaitForDrain && rollout.updated_ready >= wanted;
    if rollout.step == Step::Complete || is_drained {
        let running = counted(rollout.width, wanted, "run", "runs");
        let message = format!("{running} revision {revision}");
        return Finding::new(State::True, reason::COMPLETE, message);
    }
    if rollout.step == Step::BackOff
        && let Some(failure) = &rollout.failure
        && let Some(retry) = &failure.retry_after
    {
        let message = format!("{}; the next one is made at {}", failure.message, retry.0);
        return Finding::new(State::False, reason::BACKING_OFF, message);
    }
    match &rollout.trouble {
        Some(trouble) if rollout.ready > rollout.updated_ready => {
            let message = format!(
                "the old revision keeps serving, since {revision} does not become ready: {}",
                trouble.message
            );
            Finding::new(State::False, reason::HELD, message)
        }
        Some(trouble) if trouble.kind == Kind::Unplaced => no_node(),
        Some(trouble) => Finding::new(State::False, trouble.kind.reason(), &trouble.message),
        None => {
            let message = format!(
                "revision {revision} {} ({}); wait",
                progress(rollout.width, rollout.updated, rollout.updated_ready, wanted),
                what_happens(rollout.step)
            );
            Finding::new(State::False, reason::PROGRESSING, message)
        }
    }
}

fn what_happens(step: Step) -> &'static str {
    match step {
        Step::BackOff => "the next one waits for its back-off",
        Step::Blocked => "nothing can be made",
        Step::Complete => "all is done",
        Step::Create => "new ranks are made",
        Step::Drain => "old ranks are drained",
        Step::HandOver => "a rank that is too many hands its experts over",
        Step::ScaleDown => "ranks that are too many are drained",
        Step::Surge => "a new rank is made beside the old ones",
        Step::WaitForDrain => "an old rank finishes its requests",
        Step::WaitForInspection => "the weights are inspected",
        Step::WaitForReady => "a rank is starting",
    }
}

/// Ranks that count: of the current revision, or all while there is none.
fn live_ranks<'a>(observed: &'a Observed, rollout: &'a RolloutPlan) -> impl Iterator<Item = &'a ObservedPod> {
    observed.pods.iter().filter(|pod| {
        pod.role == Some(Role::Rank)
            && pod.terminating.is_none()
            && !matches!(pod.phase, Phase::Failed | Phase::Succeeded)
            && rollout
                .revision
                .as_ref()
                .is_none_or(|revision| *revision == pod.revision && pod.rank_or_only() < rollout.width)
    })
}

fn blocked(plan: &Plan) -> Finding {
    match &plan.capacity {
        None => waiting_for_inspection(),
        Some(capacity) if capacity.invalid.is_some() => {
            Finding::new(State::False, reason::BLOCKED, "no rank is made; see condition Valid")
        }
        Some(_) => Finding::new(State::False, reason::BLOCKED, "no rank is made; see condition Placed"),
    }
}

fn no_node() -> Finding {
    Finding::new(State::False, reason::BLOCKED, "a rank has no node; see condition Placed")
}

fn waiting_for_inspection() -> Finding {
    Finding::new(
        State::Unknown,
        reason::WAITING_FOR_INSPECTION,
        "the weights are not known yet; see condition Valid",
    )
}

fn scaled_to_zero(deployment: &Deployment, effect: &str) -> Finding {
    let message = match deployment.scaling {
        Some(_) => {
            format!("nobody asks, so {effect}; the next request at the front door brings a replica back")
        }
        None => format!("replicas is 0, so {effect}; set replicas to 1 or more"),
    };
    Finding::new(State::False, reason::SCALED_TO_ZERO, message)
}

fn service_taken(deployment: &Deployment, service: &str) -> Finding {
    let message = format!(
        "Service {service} in namespace {} belongs to somebody else; delete it, or give this ModelDeployment another \
         name",
        deployment.namespace
    );
    Finding::new(State::False, reason::SERVICE_NAME_TAKEN, message)
}

fn secret_taken(deployment: &Deployment) -> Finding {
    let message = format!(
        "Secret {} in namespace {} belongs to somebody else; delete it, or give this ModelDeployment another name",
        exchange_tls_name(&deployment.name),
        deployment.namespace
    );
    Finding::new(State::False, reason::SECRET_NAME_TAKEN, message)
}

/// `has 2 ranks, 1 ready; 1 is asked for`: there may be more than are asked for, as long as some are being removed.
/// Replicas of several ranks count as such.
fn progress(width: u32, updated: usize, ready: usize, wanted: usize) -> String {
    let what = if width > 1 { "replica" } else { "rank" };
    let has = match updated {
        0 => format!("no {what}"),
        1 => format!("1 {what}, {ready} ready"),
        _ => format!("{updated} {what}s, {ready} ready"),
    };
    format!("has {has}; {wanted} {} asked for", if wanted == 1 { "is" } else { "are" })
}

/// `1 rank runs`, `2 replicas run`: a replica of one rank is called by it.
fn counted(width: u32, count: usize, plural: &str, singular: &str) -> String {
    match (width, count) {
        (0 | 1, _) => ranks(count, plural, singular),
        (_, 1) => format!("1 replica {singular}"),
        _ => format!("{count} replicas {plural}"),
    }
}

/// `1 rank waits`, `2 ranks wait`.
fn ranks(count: usize, plural: &str, singular: &str) -> String {
    if count == 1 { format!("1 rank {singular}") } else { format!("{count} ranks {plural}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_well_for_all_counts() {
        for (counts, words) in [
            ((0, 0, 0), "has no rank; 0 are asked for"),
            ((0, 0, 1), "has no rank; 1 is asked for"),
            ((1, 0, 1), "has 1 rank, 0 ready; 1 is asked for"),
            ((1, 1, 2), "has 1 rank, 1 ready; 2 are asked for"),
            ((2, 1, 1), "has 2 ranks, 1 ready; 1 is asked for"),
            ((2, 2, 0), "has 2 ranks, 2 ready; 0 are asked for"),
            ((3, 2, 5), "has 3 ranks, 2 ready; 5 are asked for"),
        ] {
            assert_eq!(progress(1, counts.0, counts.1, counts.2), words);
        }
        assert_eq!(progress(2, 2, 1, 3), "has 2 replicas, 1 ready; 3 are asked for");
    }

    #[test]
    fn ranks_agree_with_their_verb() {
        let words = [0, 1, 2].map(|count| ranks(count, "are", "is"));
        assert_eq!(words, ["0 ranks are", "1 rank is", "2 ranks are"]);
        let words = [(1, 2), (2, 1), (2, 2)].map(|(width, count)| counted(width, count, "run", "runs"));
        assert_eq!(words, ["2 ranks run", "1 replica runs", "2 replicas run"]);
    }
}
