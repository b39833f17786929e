//! Prometheus metrics, under the names that `coterie_api::load` gives.

use coterie_api::load;
use coterie_engine::Load;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

/// Seconds; from a decode step of a small model to a long prompt on a slow machine.
const FIRST_TOKEN_BUCKETS: [f64; 14] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0];
/// Seconds.
const TOKEN_BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0];

type Ratio = Gauge<f64, AtomicU64>;

/// How a request ended. Each choice of an answer is a request of its own; what was refused counts as one, whatever it
/// asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, missing_docs)]
pub enum Outcome {
    stop,
    length,
    cancelled,
    rejected,
    failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

/// Every metric of this process.
pub struct Metrics {
    registry: Registry,
    waiting: Gauge,
    running: Gauge,
    kv_usage: Ratio,
    weights_loaded: Ratio,
    requests: Family<OutcomeLabel, Counter>,
    pub(crate) prompt_tokens: Counter,
    pub(crate) generation_tokens: Counter,
    pub(crate) time_to_first_token: Histogram,
    pub(crate) inter_token_latency: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Metrics {
            registry: Registry::default(),
            waiting: Gauge::default(),
            running: Gauge::default(),
            kv_usage: Ratio::default(),
            weights_loaded: Ratio::default(),
            requests: Family::default(),
            prompt_tokens: Counter::default(),
            generation_tokens: Counter::default(),
            time_to_first_token: Histogram::new(FIRST_TOKEN_BUCKETS),
            inter_token_latency: Histogram::new(TOKEN_BUCKETS),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(load::REQUESTS_WAITING, "Requests that wait for their first step", self.waiting.clone());
        r.register(load::REQUESTS_RUNNING, "Requests in the running batch", self.running.clone());
        r.register(load::REQUESTS, "Requests by how they ended", self.requests.clone());
        r.register(load::PROMPT_TOKENS, "Prompt tokens computed", self.prompt_tokens.clone());
        r.register(load::GENERATION_TOKENS, "Tokens generated", self.generation_tokens.clone());
        r.register(
            load::TIME_TO_FIRST_TOKEN,
            "Seconds from a request's arrival to its first token",
            self.time_to_first_token.clone(),
        );
        r.register(
            load::INTER_TOKEN_LATENCY,
            "Seconds between two tokens of one request",
            self.inter_token_latency.clone(),
        );
        r.register(load::KV_CACHE_USAGE, "Share of the KV cache in use", self.kv_usage.clone());
        r.register(load::WEIGHTS_LOADED, "Share of the weights that is loaded", self.weights_loaded.clone());
    }

    /// Counts a request that ended.
    pub fn count(&self, outcome: Outcome) {
        self.requests.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// How many requests ended so.
    pub fn counted(&self, outcome: Outcome) -> u64 {
        self.requests.get_or_create(&OutcomeLabel { outcome }).get()
    }

    /// `share` of the weights is loaded.
    pub fn set_weights_loaded(&self, share: f32) {
        self.weights_loaded.set(f64::from(share));
    }

    /// The share of the weights that is loaded.
    pub fn weights_loaded(&self) -> f64 {
        self.weights_loaded.get()
    }

    /// All metrics in the Prometheus text form, with `load` as it is now.
    pub fn text(&self, load: Load) -> String {
        self.waiting.set(load.waiting as i64);
        self.running.set(load.running as i64);
        self.kv_usage.set(f64::from(load.kv_usage));
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_exported_under_its_published_name() {
        let metrics = Metrics::default();
        metrics.count(Outcome::length);
        metrics.set_weights_loaded(0.5);
        metrics.prompt_tokens.inc_by(7);
        metrics.time_to_first_token.observe(0.3);
        let text = metrics.text(Load { waiting: 3, running: 2, kv_usage: 0.25, ..Load::default() });
        for line in [
            "coterie_requests_waiting 3",
            "coterie_requests_running 2",
            "coterie_requests_total{outcome=\"length\"} 1",
            "coterie_prompt_tokens_total 7",
            "coterie_generation_tokens_total 0",
            "coterie_time_to_first_token_seconds_count 1",
            "coterie_inter_token_latency_seconds_count 0",
            "coterie_kv_cache_usage_ratio 0.25",
            "coterie_weights_loaded_ratio 0.5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
