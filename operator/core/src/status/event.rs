//! Events: what a change of conditions is worth telling.

use coterie_api::condition::{READY, reason};
use coterie_api::deployment::ModelDeploymentStatus;
use coterie_api::deployment::status::{ExpertMove, MoveOutcome};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// A Kubernetes Event to write about the ModelDeployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventNote {
    /// Warning rather than Normal.
    pub warning: bool,
    /// One of [`reason`].
    pub reason: String,
    /// The condition that changed, or what was tried; becomes the Event's `action`.
    pub action: String,
    /// For people; at most 1024 bytes.
    pub message: String,
}

impl EventNote {
    /// Something that no condition can tell.
    pub fn warning(reason: &str, action: &str, message: String) -> Self {
        Self { warning: true, reason: reason.to_owned(), action: action.to_owned(), message: short(message) }
    }
}

/// The API server refuses a longer note.
const NOTE_LIMIT: usize = 1024;
/// Reasons that every start passes through; the condition that follows is worth the Event.
const ON_THE_WAY: [&str; 5] = [
    reason::BLOCKED,
    reason::LOADING,
    reason::NO_RANK_READY,
    reason::SCHEDULING,
    reason::WAITING_FOR_INSPECTION,
];
/// Reasons of conditions that are not true as they should be, for now.
const EXPECTED: [&str; 3] = [reason::INSPECTING, reason::PROGRESSING, reason::SCALED_TO_ZERO];

/// What is worth an Event in the step from one status to the next: each condition whose status or reason changed,
/// except on the way to somewhere. Ready only tells when it becomes true, since otherwise it repeats another.
pub fn events(old: &ModelDeploymentStatus, new: &ModelDeploymentStatus) -> Vec<EventNote> {
    let told_before = |condition: &Condition| {
        let same = |c: &&Condition| {
            c.type_ == condition.type_ && c.status == condition.status && c.reason == condition.reason
        };
        old.conditions.iter().any(|c| same(&c))
    };
    let is_worth = |condition: &&Condition| {
        let repeats = condition.type_ == READY && condition.status != "True";
        !repeats && !ON_THE_WAY.contains(&condition.reason.as_str()) && !told_before(condition)
    };
    let (ready, parts): (Vec<_>, Vec<_>) =
        new.conditions.iter().filter(is_worth).partition(|c| c.type_ == READY);
    let scaled = of_scaling(old, new);
    parts.into_iter().chain(ready).map(note).chain(of_experts(old, new)).chain(scaled).collect()
}

/// The scaler's newest decision, if it is another one.
fn of_scaling(old: &ModelDeploymentStatus, new: &ModelDeploymentStatus) -> Option<EventNote> {
    let newest = |status: &ModelDeploymentStatus| status.scaling.as_ref()?.decisions.first().cloned();
    let decision = newest(new).filter(|decision| Some(decision) != newest(old).as_ref())?;
    Some(EventNote {
        warning: false,
        reason: reason::SCALED.to_owned(),
        action: "Scale".to_owned(),
        message: short(format!("{} -> {} replicas: {}", decision.from, decision.to, decision.why)),
    })
}

/// Moves of experts, when they begin and when they are done, and experts that are lost.
fn of_experts(old: &ModelDeploymentStatus, new: &ModelDeploymentStatus) -> Vec<EventNote> {
    let replicas = |status: &ModelDeploymentStatus| {
        status.experts.as_ref().map_or(Vec::new(), |experts| experts.replicas.clone())
    };
    let before = replicas(old);
    let mut notes = Vec::new();
    for after in replicas(new) {
        let before = before.iter().find(|before| before.replica == after.replica);
        let note = |warning, reason: &str, message| EventNote {
            warning,
            reason: reason.to_owned(),
            action: "MoveExperts".to_owned(),
            message: short(message),
        };
        if let Some(moved) = &after.last_move {
            let told = before.and_then(|before| before.last_move.as_ref());
            let told = told.filter(|told| told.time == moved.time);
            let map = format!("expert map {} of replica {}", after.version, after.replica);
            if told.is_none() {
                let message = format!("{map} has {} slots to load: {}", moved.slots, moved.why);
                notes.push(note(false, reason::EXPERTS_MOVING, message));
            }
            let is_done = |told: &ExpertMove| told.outcome == MoveOutcome::Done;
            if is_done(moved) && !told.is_some_and(is_done) {
                notes.push(note(false, reason::EXPERTS_MOVED, format!("every rank goes by {map}")));
            }
        }
        if after.lost > 0 && before.is_none_or(|before| before.lost == 0) {
            let what = format!("{} experts of replica {} are on no ready rank", after.lost, after.replica);
            let message = match &after.trouble {
                Some(trouble) => format!("{what}; {trouble}"),
                None => format!(
                    "{what}: the others load them from the weights source when they are needed; set experts.redundant \
                     so that others hold them already"
                ),
            };
            notes.push(note(true, reason::EXPERTS_LOST, message));
        }
    }
    notes
}

fn note(condition: &Condition) -> EventNote {
    let expected = EXPECTED.contains(&condition.reason.as_str());
    EventNote {
        warning: condition.status != "True" && !expected,
        reason: condition.reason.clone(),
        action: condition.type_.clone(),
        message: short(condition.message.clone()),
    }
}

fn short(mut message: String) -> String {
    let end = (0..=NOTE_LIMIT.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
    message.truncate(end.unwrap_or(0));
    message
}
