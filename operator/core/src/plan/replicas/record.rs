//! What `status.scaling` says: the numbers, and the last decisions.

use super::demand::Measured;
use super::{Decision, Signals};
use crate::plan::whole_second;
use coterie_api::deployment::scaling::{DECISIONS_KEPT, MeasuredStatus, ScalingDecision, ScalingStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Numbers that change all the time are not worth a write each.
const EVERY: SignedDuration = SignedDuration::from_secs(10);
/// What was measured is written again when it is so much more or less.
const NOTABLE: f64 = 0.2;

/// The status after a decision. It is what it was as long as nothing was decided and what it told is ten seconds old or
/// still true. `current` is how many replicas there should have been until now.
pub fn record(
    before: Option<&ScalingStatus>,
    decision: &Decision,
    current: usize,
    now: Timestamp,
) -> ScalingStatus {
    let now = whole_second(now);
    let time = Time(now);
    let signals = &decision.signals;
    let measured_before = before.and_then(|before| before.measured.clone());
    let mut after = ScalingStatus {
        time: time.clone(),
        queue_depth: count(signals.queue_depth()),
        waiting: count(signals.at_ranks),
        running: count(signals.running),
        desired: decision.desired as i32,
        why: decision.why.clone(),
        measured: measured(signals, measured_before),
        decisions: before.map(|before| before.decisions.clone()).unwrap_or_default(),
    };
    let changed = before.map_or(current, |before| before.desired.max(0) as usize) != decision.desired;
    if changed {
        let made = ScalingDecision {
            time,
            from: before.map_or(current as i32, |before| before.desired),
            to: after.desired,
            why: after.why.clone(),
        };
        after.decisions.insert(0, made);
        after.decisions.truncate(DECISIONS_KEPT);
    }
    match before {
        Some(before) if !changed && !is_due(before, &after, now) => before.clone(),
        _ => after,
    }
}

/// Whether the numbers are other ones, and those written are old enough.
fn is_due(before: &ScalingStatus, after: &ScalingStatus, now: Timestamp) -> bool {
    let numbers = |status: &ScalingStatus| (status.queue_depth, status.waiting, status.running);
    let differ = numbers(before) != numbers(after) || before.measured != after.measured;
    differ && now.duration_since(before.time.0).abs() >= EVERY
}

fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What was measured, or what was written before if that is nearly the same.
fn measured(signals: &Signals, before: Option<MeasuredStatus>) -> Option<MeasuredStatus> {
    let Some(measured) = &signals.measured else { return before };
    let Measured { rates, prompt_tokens, computed_share, output_tokens, max_running, .. } = *measured;
    let after = MeasuredStatus {
        prefill_tokens_per_second: (1.0 / rates.prompt.max(1e-9)).round() as i64,
        step_microseconds: (rates.step * 1e6).round() as i64,
        token_microseconds: (rates.token * 1e6).round() as i64,
        prompt_tokens: (prompt_tokens * computed_share).round() as i64,
        output_tokens: output_tokens.round() as i64,
        max_running: max_running.round() as i64,
        start_seconds: signals.start.map(|start| start.round() as i64),
    };
    match before {
        Some(before) if are_near(&before, &after) => Some(before),
        _ => Some(after),
    }
}

fn are_near(before: &MeasuredStatus, after: &MeasuredStatus) -> bool {
    let numbers = |status: &MeasuredStatus| {
        [
            status.prefill_tokens_per_second,
            status.step_microseconds,
            status.token_microseconds,
            status.prompt_tokens,
            status.output_tokens,
            status.max_running,
            status.start_seconds.unwrap_or(-1),
        ]
    };
    let near = |(before, after): (i64, i64)| before.abs_diff(after) as f64 <= NOTABLE * before.abs() as f64;
    numbers(before).into_iter().zip(numbers(after)).all(near)
}
