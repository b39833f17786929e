//! The list of conditions: times of transition are kept, and Ready is the sum of the others.

use crate::plan::{Finding, State};
use coterie_api::condition::{PARTS, READY, reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

pub(super) struct Conditions {
    list: Vec<Condition>,
    generation: i64,
    now: Time,
}

impl Conditions {
    /// Starts from what was told before.
    pub(super) fn after(before: Vec<Condition>, generation: i64, now: Timestamp) -> Self {
        Self { list: before, generation, now: Time(now) }
    }

    /// Sets the findings, and Ready from all parts. Ready is `False` as soon as one part is not true: a part that
    /// nobody can tell is not there either.
    pub(super) fn with_sum(mut self, findings: Vec<(&'static str, Finding)>) -> Vec<Condition> {
        for (kind, finding) in findings {
            self.set(kind, finding.state, finding.reason, finding.message);
        }
        let list = &self.list;
        let lacking = PARTS
            .into_iter()
            .filter_map(|kind| list.iter().find(|condition| condition.type_ == kind))
            .find(|condition| condition.status != "True")
            .map(|condition| (condition.reason.clone(), condition.message.clone()));
        match lacking {
            Some((reason, message)) => self.set(READY, State::False, &reason, message),
            None => self.set(
                READY,
                State::True,
                reason::AS_ASKED,
                "everything that was asked for is in effect".into(),
            ),
        }
        let position = |condition: &Condition| PARTS.into_iter().position(|kind| kind == condition.type_);
        // Ready first (it is no part), then the parts in their order.
        self.list.retain(|condition| condition.type_ == READY || position(condition).is_some());
        self.list.sort_by_key(position);
        self.list
    }

    /// The time of transition changes only with the status, whatever happens to reason and message.
    fn set(&mut self, kind: &str, state: State, reason: &str, message: String) {
        let status = format!("{state:?}");
        let before = self.list.iter().find(|condition| condition.type_ == kind);
        let since =
            before.filter(|condition| condition.status == status).map(|c| c.last_transition_time.clone());
        let condition = Condition {
            last_transition_time: since.unwrap_or_else(|| self.now.clone()),
            message,
            observed_generation: Some(self.generation),
            reason: reason.to_owned(),
            status,
            type_: kind.to_owned(),
        };
        self.list.retain(|condition| condition.type_ != kind);
        self.list.push(condition);
    }
}
