//! What a rank tells of its load: `GET /load` on its HTTP port, for the front door and the operator.

use serde::{Deserialize, Serialize};

/// One rank's load. The counts only go up; who asks takes differences of two answers with the same `since`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RankLoad {
    /// When this process began to count, milliseconds since 1970: another value means that the counts began again at 0.
    pub since: u64,
    /// Whether new requests are taken: the model is loaded and tested, and no drain has begun.
    pub ready: bool,
    /// Whether it was asked to end.
    pub draining: bool,
    /// Requests that wait for their first step.
    pub waiting: u64,
    /// Prompt tokens of the requests that wait.
    pub waiting_tokens: u64,
    /// Prompt tokens of requests in the running batch that are yet to be computed. An older rank does not tell: 0.
    pub prefilling_tokens: u64,
    /// Requests in the running batch.
    pub running: u64,
    /// Requests in one batch at most.
    pub max_running: u64,
    /// Share of the KV cache that running requests hold, 0 to 1.
    pub kv_usage: f64,
    /// Requests that were begun.
    pub requests: u64,
    /// Prompt tokens of requests that were begun, those from the prefix cache included.
    pub prompt_tokens: u64,
    /// Prompt tokens computed; those from the prefix cache are not.
    pub computed_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Steps of the engine.
    pub steps: u64,
    /// Seconds that the steps took together.
    pub busy_seconds: f64,
}

impl RankLoad {
    /// Prompt tokens that are yet to be computed before a new request's, at most.
    pub fn uncomputed_tokens(&self) -> u64 {
        self.waiting_tokens.saturating_add(self.prefilling_tokens)
    }
}
