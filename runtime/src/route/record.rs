//! What is told of a request once it is over: one line in the log, and what is counted.

use super::door::Door;
use super::keys::Permit;
use super::metrics::Outcome;
use super::table::ModelKey;
use crate::server::ApiError;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is known of a request before it is over. Dropped before any end is known, its client has gone away.
#[derive(Debug)]
pub struct Record {
    door: Arc<Door>,
    permit: Permit,
    model: ModelKey,
    arrived: Instant,
    held: Option<Duration>,
    ranks: u32,
    outcome: Outcome,
    error: Option<&'static str>,
    /// Tokens generated for it, as far as the rank tells.
    pub tokens: u64,
    /// Tokens of its prompt, if the rank tells.
    pub prompt: Option<u64>,
}

impl Record {
    /// A request that came at `arrived`.
    pub fn begin(door: Arc<Door>, permit: Permit, model: ModelKey, arrived: Instant) -> Record {
        let outcome = Outcome::Cancelled;
        let (held, prompt) = (None, None);
        Record { door, permit, model, arrived, held, ranks: 0, outcome, error: None, tokens: 0, prompt }
    }

    /// It was given a rank.
    pub fn leased(&mut self) {
        self.ranks += 1;
        if self.held.is_none() {
            let held = self.arrived.elapsed();
            self.door.metrics.held(held);
            self.held = Some(held);
        }
    }

    /// The rank that had it was lost; another one goes on with its answer, or begins it anew.
    pub fn again(&self, goes_on: bool) {
        if goes_on {
            self.door.metrics.continued(&self.model);
        } else {
            self.door.metrics.retried(&self.model);
        }
    }

    /// The rank's answer was passed on to its end.
    pub fn answered(&mut self) {
        self.outcome = Outcome::Answered;
    }

    /// It gets this error from us; after a part of its answer, or instead of one.
    pub fn failed(&mut self, error: &ApiError, partly: bool) {
        self.outcome = if partly { Outcome::Failed } else { Outcome::Refused };
        self.error = Some(error.name());
        if !partly {
            self.door.metrics.refused(error.name());
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.permit.settle(self.prompt, self.tokens);
        self.door.metrics.ended(&self.model, self.permit.name(), self.outcome, self.tokens);
        tracing::info!(
            model = %self.model,
            key = &**self.permit.name(),
            outcome = self.outcome.name(),
            error = self.error,
            ranks = self.ranks,
            completion_tokens = self.tokens,
            held_seconds = self.held.map(|held| held.as_secs_f64()),
            seconds = self.arrived.elapsed().as_secs_f64(),
            "request"
        );
    }
}
