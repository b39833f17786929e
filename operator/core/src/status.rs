//! (Plan, Applied) → status and its conditions, and the Events that a change is worth.

mod conditions;
mod event;
mod findings;

pub use event::{EventNote, events};

use crate::objects::{endpoint, rank_selector};
use crate::observed::Observed;
use crate::plan::replicas::record;
use crate::plan::rollout::Step;
use crate::plan::{Finding, Plan, State, whole_second};
use crate::validate::{Deployment, Invalid};
use conditions::Conditions;
use coterie_api::condition::{PARTS, VALID, reason};
use coterie_api::deployment::status::{ExpertsStatus, ReplicaExpertsStatus, RolloutStatus};
use coterie_api::deployment::{ModelDeployment, ModelDeploymentStatus};
use jiff::Timestamp;

/// What became of a plan's actions: what the API server refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// In the order of the actions. Conflicts and objects that were gone already do not belong here (see
    /// [`crate::plan::Action`]).
    pub refusals: Vec<Refusal>,
}

/// An action that the API server did not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// [`crate::plan::Action::object`].
    pub object: String,
    /// The API server's own words.
    pub message: String,
}

/// The status to write. Equal to `observed.status` when nothing changed: then the shell writes nothing.
pub fn status(
    deployment: &Deployment,
    observed: &Observed,
    plan: &Plan,
    applied: &Applied,
    now: Timestamp,
) -> ModelDeploymentStatus {
    let before = observed.status.clone();
    let rollout = &plan.rollout;
    let findings = findings::findings(deployment, observed, plan, applied);
    let capacity = plan.capacity.as_ref();
    let waits_for_room = findings.iter().any(|(_, finding)| finding.reason == reason::NO_ROOM);
    let selector = rank_selector(deployment);
    let selector: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    ModelDeploymentStatus {
        conditions: Conditions::after(before.conditions, deployment.generation, whole_second(now))
            .with_sum(findings),
        observed_generation: Some(deployment.generation),
        replicas: count(rollout.live),
        ready_replicas: count(rollout.ready),
        ranks: rollout.revision.as_ref().map(|_| count(rollout.width as usize)).or(before.ranks),
        ready_of_desired: Some(format!("{}/{}", rollout.ready, deployment.replicas)),
        selector: Some(selector.join(",")),
        endpoint: Some(endpoint(deployment)),
        // While new weights are unknown, what is told is what still serves.
        quantization: capacity.map(|capacity| capacity.quantization).or(before.quantization),
        context_length: capacity.map(|capacity| capacity.context_length).or(before.context_length),
        capacity: capacity.map(|capacity| capacity.status(waits_for_room)).or(before.capacity),
        weights: plan.inspection.weights.clone().or(before.weights),
        rollout: Some(RolloutStatus {
            revision: rollout.revision.clone(),
            updated: if rollout.revision.is_some() { count(rollout.updated_ready) } else { 0 },
            step: format!("{:?}", rollout.step),
            hold_reason: hold_reason(plan),
        }),
        experts: if rollout.revision.is_some() { experts(plan) } else { before.experts },
        scaling: match (&deployment.scaling, &observed.decision) {
            (None, _) => None,
            (Some(_), None) => before.scaling,
            (Some(_), Some(decision)) => Some(record(before.scaling.as_ref(), decision, rollout.live, now)),
        },
        last_failure: rollout.failure.clone(),
        last_inspect_failure: plan.inspection.failure.clone(),
    }
}

/// A status must not grow with a thousand replicas.
const REPLICAS_TOLD: usize = 100;

fn experts(plan: &Plan) -> Option<ExpertsStatus> {
    let replicas = &plan.experts.replicas;
    let balance = |replica: &ReplicaExpertsStatus| replica.balance.clone();
    // Two digits after the point: as text they have the order of the numbers as long as they are as long.
    let worst = replicas.iter().filter_map(balance).max_by_key(|text| (text.len(), text.clone()));
    (!replicas.is_empty()).then(|| ExpertsStatus {
        balance: worst,
        replicas: replicas.iter().take(REPLICAS_TOLD).cloned().collect(),
    })
}

/// The status of an object whose spec breaks a rule: its pods are left as they are, `Valid` says why.
pub fn status_of_invalid(object: &ModelDeployment, why: &Invalid, now: Timestamp) -> ModelDeploymentStatus {
    let mut status = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let valid = Finding::new(State::False, reason::INVALID_SPEC, why.to_string());
    let mut findings = vec![(VALID, valid)];
    for kind in PARTS.into_iter().skip(1) {
        if !status.conditions.iter().any(|condition| condition.type_ == kind) {
            findings.push((kind, Finding::new(State::Unknown, reason::BLOCKED, "see condition Valid")));
        }
    }
    status.conditions =
        Conditions::after(status.conditions, generation, whole_second(now)).with_sum(findings);
    status.observed_generation = Some(generation);
    status
}

fn hold_reason(plan: &Plan) -> Option<String> {
    let rollout = &plan.rollout;
    match rollout.step {
        Step::Blocked => {
            let capacity = plan.capacity.as_ref();
            let obstacle = capacity.and_then(|c| c.invalid.as_ref().or(c.unplaceable.as_ref()));
            Some(obstacle.unwrap_or(&plan.inspection.finding).message.clone())
        }
        Step::BackOff => rollout.failure.as_ref().map(|failure| failure.message.clone()),
        Step::WaitForReady => rollout.trouble.as_ref().map(|trouble| trouble.message.clone()),
        _ => None,
    }
}

fn count(pods: usize) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
