//! What a rank reports while it serves: the names of its Prometheus metrics, in one place.

/// Gauge: requests that wait for their first step.
pub const REQUESTS_WAITING: &str = "coterie_requests_waiting";
/// Gauge: requests in the running batch.
pub const REQUESTS_RUNNING: &str = "coterie_requests_running";
/// Counter (`_total`): requests by `outcome` (`stop`, `length`, `cancelled`, `rejected`, `failed`). Each choice of an answer is a
/// request of its own; an HTTP request that is refused counts as one.
pub const REQUESTS: &str = "coterie_requests";
/// Counter (`_total`): prompt tokens computed.
pub const PROMPT_TOKENS: &str = "coterie_prompt_tokens";
/// Counter (`_total`): tokens generated.
pub const GENERATION_TOKENS: &str = "coterie_generation_tokens";
/// Histogram, seconds: from a request's arrival to its first token.
pub const TIME_TO_FIRST_TOKEN: &str = "coterie_time_to_first_token_seconds";
/// Histogram, seconds: between two tokens of one request.
pub const INTER_TOKEN_LATENCY: &str = "coterie_inter_token_latency_seconds";
/// Gauge, 0 to 1: share of the KV cache in use.
pub const KV_CACHE_USAGE: &str = "coterie_kv_cache_usage_ratio";
/// Gauge, 0 to 1: share of the weights that is loaded.
pub const WEIGHTS_LOADED: &str = "coterie_weights_loaded_ratio";
