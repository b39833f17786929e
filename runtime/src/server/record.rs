//! What is told of a request once it is over: one line in the log, and its span.

use super::Front;
use super::openai::ApiError;
use crate::engine_thread::Timing;
use crate::generation::{Generation, Wanted};
use crate::metrics::Outcome;
use crate::telemetry::{Operation, RequestSpan, words};
use axum::http::HeaderMap;
use opentelemetry::{Context, KeyValue};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What is known of a request before it is over.
pub(super) struct Record {
    front: Arc<Front>,
    operation: Operation,
    arrived: Instant,
    arrived_at: SystemTime,
    /// Whose work it is part of; none where nobody collects spans.
    parent: Option<Context>,
    id: String,
    /// What was asked for.
    attributes: Vec<KeyValue>,
}

/// An answer that is told of when it is dropped, whole or not.
pub(super) struct Recorded {
    pub generation: Generation,
    record: Record,
}

impl Record {
    /// A request that comes now.
    pub fn begin(front: &Arc<Front>, operation: Operation, headers: &HeaderMap) -> Record {
        Record {
            front: front.clone(),
            operation,
            arrived: Instant::now(),
            arrived_at: SystemTime::now(),
            parent: front.traces.parent(headers),
            id: String::new(),
            attributes: Vec::new(),
        }
    }

    /// When it came.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// It is valid, asks for `wanted`, and its answer will be called `id`.
    pub fn asked(&mut self, wanted: &Wanted, id: &str) {
        id.clone_into(&mut self.id);
        if let (Some(_), [request, ..]) = (&self.parent, &*wanted.requests) {
            self.attributes = vec![
                KeyValue::new("gen_ai.response.id", id.to_owned()),
                KeyValue::new("gen_ai.request.temperature", f64::from(request.sampling.temperature)),
                KeyValue::new("gen_ai.request.top_p", f64::from(request.sampling.top_p)),
                KeyValue::new("gen_ai.request.max_tokens", request.max_tokens as i64),
                KeyValue::new("gen_ai.request.choice.count", wanted.choices_per_prompt as i64),
            ];
        }
    }

    /// It is being answered.
    pub fn of(self, generation: Generation) -> Recorded {
        Recorded { generation, record: self }
    }

    /// It was not answered, and why.
    pub fn refused(self, why: &ApiError) {
        self.front.metrics.count(Outcome::Rejected);
        let took = self.arrived.elapsed();
        let (status, error) = (why.status(), why.name());
        tracing::info!(
            operation = self.operation.name(),
            outcome = Outcome::Rejected.name(),
            status,
            error,
            seconds = took.as_secs_f64(),
            "request"
        );
        self.end_span(took, Vec::new(), Some((error, why.message().to_owned())));
    }

    fn end_span(&self, took: Duration, results: Vec<KeyValue>, error: Option<(&'static str, String)>) {
        let Some(parent) = &self.parent else { return };
        self.front.traces.tell(RequestSpan {
            parent: parent.clone(),
            operation: self.operation,
            model: self.front.served_name.clone(),
            arrived: self.arrived_at,
            took,
            attributes: [self.attributes.clone(), results].concat(),
            error,
        });
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let Recorded { generation, record } = self;
        let took = record.arrived.elapsed();
        let queue = generation.timings().filter_map(Timing::queue).min().map(|time| time.as_secs_f64());
        let first_token = generation.timings().filter_map(Timing::first_token).min();
        let first_token = first_token.map(|time| time.as_secs_f64());
        let outcome = worst(generation);
        tracing::info!(
            id = record.id,
            operation = record.operation.name(),
            outcome = outcome.name(),
            prompt_tokens = generation.prompt_tokens(),
            cached_tokens = generation.cached_tokens(),
            completion_tokens = generation.completion_tokens(),
            replayed_tokens = generation.replayed_tokens(),
            queue_seconds = queue,
            first_token_seconds = first_token,
            seconds = took.as_secs_f64(),
            "request"
        );
        if record.parent.is_none() {
            return;
        }
        let reasons = generation.outcomes().map(|outcome| outcome.unwrap_or(Outcome::Cancelled).name());
        let mut results = vec![
            KeyValue::new("gen_ai.usage.input_tokens", generation.prompt_tokens() as i64),
            KeyValue::new("gen_ai.usage.output_tokens", generation.completion_tokens() as i64),
            KeyValue::new("gen_ai.usage.cache_read.input_tokens", generation.cached_tokens() as i64),
            words("gen_ai.response.finish_reasons", reasons),
        ];
        results.extend(queue.map(|seconds| KeyValue::new("gen_ai.latency.time_in_queue", seconds)));
        results.extend(first_token.map(|s| KeyValue::new("gen_ai.latency.time_to_first_token", s)));
        let failed = || (outcome.name(), "the answer was not finished".to_owned());
        let error = (outcome == Outcome::Failed).then(failed);
        record.end_span(took, results, error);
    }
}

/// How a request ended whose choices ended differently: as the one that came to the least.
fn worst(generation: &Generation) -> Outcome {
    let outcomes = generation.outcomes().map(|outcome| outcome.unwrap_or(Outcome::Cancelled));
    let badness = |outcome: &Outcome| match outcome {
        Outcome::Stop => 0,
        Outcome::Length => 1,
        Outcome::Cancelled => 2,
        Outcome::Rejected => 3,
        Outcome::FormLost => 4,
        Outcome::Failed => 5,
    };
    outcomes.max_by_key(badness).unwrap_or(Outcome::Cancelled)
}
