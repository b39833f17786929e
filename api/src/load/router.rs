//! What a router reports: its Prometheus metrics. The labels `namespace` and `model` name a ModelDeployment, `key` the
//! API key of who asked, empty where none are asked for.

use super::{Kind, Metric};

metrics! {
    /// Every metric of a router.
    ALL;

    /// Requests that wait here for a rank, by `namespace` and `model`
    REQUESTS_WAITING: Gauge, "requests", "coterie_router_requests_waiting", [];
    /// Prompt tokens of the requests that wait, estimated from their bytes
    WAITING_TOKENS: Gauge, "tokens", "coterie_router_waiting_tokens", [];
    /// Requests that are with a rank
    REQUESTS_RUNNING: Gauge, "requests", "coterie_router_requests_running", [];
    /// Ranks that take requests, as this router sees it
    RANKS: Gauge, "ranks", "coterie_router_ranks", [];
    /// Requests that ended, by `namespace`, `model`, `key` and `outcome`: answered, refused, failed, cancelled
    REQUESTS: Counter, "requests", "coterie_router_requests", [];
    /// Tokens generated for them, as far as ranks tell
    TOKENS: Counter, "tokens", "coterie_router_generation_tokens", [];
    /// Requests that the front door refused itself, by the error's `code`
    REFUSALS: Counter, "requests", "coterie_router_refusals", [];
    /// How often a request was sent to another rank from its beginning
    RETRIES: Counter, "requests", "coterie_router_retries", [];
    /// How often another rank went on with a stream whose rank was lost
    CONTINUED: Counter, "streams", "coterie_router_streams_continued", [];
    /// From a request's arrival to the rank that takes it
    HELD: Histogram, "seconds", "coterie_router_held_seconds", [];
}
