//! When what happened to one request, by the clock of the engine's thread: a slow reader does not change it.

use std::time::{Duration, Instant};

/// The times of one request.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    arrived: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

impl Timing {
    /// A request that came at `arrived`.
    pub fn new(arrived: Instant) -> Timing {
        Timing { arrived, started: None, first_token: None, last_token: None }
    }

    /// Its first step began.
    pub fn start(&mut self, at: Instant) {
        self.started = Some(at);
    }

    /// A token of it was generated; how long after the one before.
    pub fn token(&mut self, at: Instant) -> Option<Duration> {
        self.first_token.get_or_insert(at);
        self.last_token.replace(at).map(|before| at - before)
    }

    /// From its arrival to its first step.
    pub fn queue(&self) -> Option<Duration> {
        self.started.map(|started| started.saturating_duration_since(self.arrived))
    }

    /// From its arrival to its first token.
    pub fn first_token(&self) -> Option<Duration> {
        self.first_token.map(|first| first.saturating_duration_since(self.arrived))
    }

    /// From its first step to its first token.
    pub fn prefill(&self) -> Option<Duration> {
        Some(self.first_token?.saturating_duration_since(self.started?))
    }

    /// From its first token to its last.
    pub fn decode(&self) -> Option<Duration> {
        Some(self.last_token?.saturating_duration_since(self.first_token?))
    }

    /// From its arrival to its last token, or to its first step where none is generated.
    pub fn whole(&self) -> Duration {
        let last = self.last_token.or(self.started).unwrap_or(self.arrived);
        last.saturating_duration_since(self.arrived)
    }
}
