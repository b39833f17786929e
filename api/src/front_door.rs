//! What the front door tells of what waits there: `GET /load` on its port of metrics, for the operator.

use serde::{Deserialize, Serialize};

/// One router's view. The operator adds up those of all routers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FrontDoorLoad {
    /// When this process began to count, milliseconds since 1970: another value means that the counts began again at 0.
    pub since: u64,
    /// Every ModelDeployment that it sees.
    pub models: Vec<ModelLoad>,
}

/// What clients ask of one ModelDeployment, at one router.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelLoad {
    /// Namespace of the ModelDeployment.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Requests that wait here, because no rank is there or none has room.
    pub waiting: u64,
    /// Prompt tokens of them, estimated from their bytes.
    pub waiting_tokens: u64,
    /// Seconds that the first of them has waited.
    pub oldest_wait_seconds: f64,
    /// Requests that are with a rank.
    pub running: u64,
    /// Seconds since the last request came or ended; none if there was none yet.
    pub idle_seconds: Option<f64>,
    /// Requests that came, ever.
    pub requests: u64,
    /// Estimated prompt tokens of them.
    pub prompt_tokens: u64,
}
