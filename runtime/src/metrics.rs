//! Prometheus metrics, as `coterie_api::load` declares them. Whoever counts adds to atomics; whoever reads waits for
//! nobody, and nobody waits for them.

mod exposition;
mod histogram;
mod outcome;

pub use exposition::Exposition;
pub use histogram::Histogram;
pub use outcome::Outcome;

use crate::engine_thread::Timing;
use crate::exchange::ExchangeCounts;
use coterie_api::load::{self, Metric};
use coterie_engine::{Load, Loaded};
use outcome::{FinishedReasons, Outcomes};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric as Exported, Registry};
use std::sync::atomic::{AtomicU64, Ordering};

type Ratio = Gauge<f64, AtomicU64>;
type Seconds = Gauge<f64, AtomicU64>;

/// Every metric of this process.
pub struct Metrics {
    exports: Exports,
    weights_loaded: Ratio,
    weights_read: Gauge,
    load_seconds: Seconds,
    outcomes: Outcomes,
    at_scrape: AtScrape,
    /// Spans that the collector did not get.
    pub(crate) spans_lost: Counter,
    pub(crate) queue_time: Histogram,
    pub(crate) time_to_first_token: Histogram,
    pub(crate) inter_token_latency: Histogram,
    pub(crate) step_time: Histogram,
    pub(crate) step_tokens: Histogram,
    pub(crate) step_requests: Histogram,
    answers: Answers,
}

/// What is exported, under our names and under vLLM's.
struct Exports {
    ours: Registry,
    /// With vLLM's labels.
    vllms: Registry,
}

/// What the engine counts itself; taken over when somebody asks.
#[derive(Default)]
struct AtScrape {
    waiting: Gauge,
    waiting_tokens: Gauge,
    running: Gauge,
    kv_usage: Ratio,
    started_tokens: Counter,
    cached_tokens: Counter,
    computed_tokens: Counter,
    generated_tokens: Counter,
    drafts: Counter,
    draft_tokens: Counter,
    accepted_tokens: Counter,
    preemptions: Counter,
}

/// Observed once for each whole answer.
struct Answers {
    request_time: Histogram,
    prefill_time: Histogram,
    decode_time: Histogram,
    time_per_output_token: Histogram,
    prompt_tokens: Histogram,
    generation_tokens: Histogram,
}

impl Metrics {
    /// The metrics of a rank whose clients call its model `served_name`, and whose exchange counts `exchange`.
    pub fn new(served_name: &str, exchange: &ExchangeCounts) -> Metrics {
        let (seconds, numbers) = (Histogram::of_seconds, Histogram::of_numbers);
        let mut metrics = Metrics {
            exports: Exports::new(served_name),
            weights_loaded: Ratio::default(),
            weights_read: Gauge::default(),
            load_seconds: Seconds::default(),
            outcomes: Outcomes::default(),
            at_scrape: AtScrape::default(),
            spans_lost: Counter::default(),
            queue_time: seconds(histogram::REQUEST),
            time_to_first_token: seconds(histogram::FIRST_TOKEN),
            inter_token_latency: seconds(histogram::BETWEEN_TOKENS),
            step_time: seconds(histogram::STEP),
            step_tokens: numbers(histogram::STEP_TOKENS),
            step_requests: numbers(histogram::STEP_REQUESTS),
            answers: Answers {
                request_time: seconds(histogram::REQUEST),
                prefill_time: seconds(histogram::REQUEST),
                decode_time: seconds(histogram::REQUEST),
                time_per_output_token: seconds(histogram::BETWEEN_TOKENS),
                prompt_tokens: numbers(histogram::TOKENS),
                generation_tokens: numbers(histogram::TOKENS),
            },
        };
        metrics.export_all();
        metrics.exports.exchange(exchange);
        metrics
    }

    fn export_all(&mut self) {
        let (exports, engine, answers) = (&mut self.exports, &self.at_scrape, &self.answers);
        exports.both(load::REQUESTS_WAITING, &engine.waiting);
        exports.both(load::WAITING_TOKENS, &engine.waiting_tokens);
        exports.both(load::REQUESTS_RUNNING, &engine.running);
        exports.both(load::KV_CACHE_USAGE, &engine.kv_usage);
        exports.both(load::WEIGHTS_LOADED, &self.weights_loaded);
        exports.both(load::WEIGHTS_READ, &self.weights_read);
        exports.both(load::WEIGHTS_LOAD_TIME, &self.load_seconds);

        exports.ours(load::REQUESTS, &self.outcomes);
        exports.vllms(load::REQUESTS, &FinishedReasons(self.outcomes.clone()));
        exports.both(load::PROMPT_TOKENS, &engine.started_tokens);
        exports.both(load::PROMPT_TOKENS_CACHED, &engine.cached_tokens);
        exports.both(load::PROMPT_TOKENS_COMPUTED, &engine.computed_tokens);
        exports.both(load::GENERATION_TOKENS, &engine.generated_tokens);
        exports.both(load::DRAFTS, &engine.drafts);
        exports.both(load::DRAFT_TOKENS, &engine.draft_tokens);
        exports.both(load::DRAFT_TOKENS_ACCEPTED, &engine.accepted_tokens);
        exports.both(load::PREEMPTIONS, &engine.preemptions);
        exports.both(load::SPANS_LOST, &self.spans_lost);

        exports.both(load::QUEUE_TIME, &self.queue_time);
        exports.both(load::TIME_TO_FIRST_TOKEN, &self.time_to_first_token);
        exports.both(load::INTER_TOKEN_LATENCY, &self.inter_token_latency);
        exports.both(load::TIME_PER_OUTPUT_TOKEN, &answers.time_per_output_token);
        exports.both(load::PREFILL_TIME, &answers.prefill_time);
        exports.both(load::DECODE_TIME, &answers.decode_time);
        exports.both(load::REQUEST_TIME, &answers.request_time);
        exports.both(load::REQUEST_PROMPT_TOKENS, &answers.prompt_tokens);
        exports.both(load::REQUEST_GENERATION_TOKENS, &answers.generation_tokens);
        exports.both(load::STEP_TIME, &self.step_time);
        exports.both(load::STEP_TOKENS, &self.step_tokens);
        exports.both(load::STEP_REQUESTS, &self.step_requests);
    }

    /// Counts a request that ended.
    pub fn count(&self, outcome: Outcome) {
        self.outcomes.count(outcome);
    }

    /// How many requests ended so.
    pub fn counted(&self, outcome: Outcome) -> u64 {
        self.outcomes.counted(outcome)
    }

    /// Counts the times and the tokens of an answer that is whole.
    pub fn observe_answer(&self, timing: &Timing, prompt_tokens: usize, generated_tokens: usize) {
        let answers = &self.answers;
        answers.prompt_tokens.observe_number(prompt_tokens);
        answers.generation_tokens.observe_number(generated_tokens);
        answers.request_time.observe(timing.whole());
        if let Some(prefill) = timing.prefill() {
            answers.prefill_time.observe(prefill);
        }
        if let Some(decode) = timing.decode() {
            answers.decode_time.observe(decode);
            if let Some(gaps @ 1..) = u32::try_from(generated_tokens).ok().and_then(|n| n.checked_sub(1)) {
                answers.time_per_output_token.observe(decode / gaps);
            }
        }
    }

    /// `share` of the weights is loaded.
    pub fn set_weights_loaded(&self, share: f32) {
        self.weights_loaded.set(f64::from(share));
    }

    /// What loading took, when it is done.
    pub fn set_loaded(&self, loaded: Loaded) {
        self.set_weights_loaded(1.0);
        self.weights_read.set(i64::try_from(loaded.bytes).unwrap_or(i64::MAX));
        self.load_seconds.set(loaded.time.as_secs_f64());
    }

    /// The share of the weights that is loaded.
    pub fn weights_loaded(&self) -> f64 {
        self.weights_loaded.get()
    }

    /// All metrics as text, with `load` as it is now.
    pub fn text(&self, load: Load, form: Exposition) -> String {
        self.at_scrape.take(load);
        encoded(&[&self.exports.ours, &self.exports.vllms], form)
    }
}

/// What `registries` export.
pub(crate) fn encoded(registries: &[&Registry], form: Exposition) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for registry in registries {
        let _ = encode_registry(&mut text, registry);
    }
    let _ = encode_eof(&mut text);
    match form {
        Exposition::OpenMetrics => text,
        Exposition::Plain => exposition::plain(&text),
    }
}

impl AtScrape {
    fn take(&self, load: Load) {
        self.waiting.set(load.waiting as i64);
        self.waiting_tokens.set(load.waiting_tokens as i64);
        self.running.set(load.running as i64);
        self.kv_usage.set(f64::from(load.kv_usage));
        // Of two that scrape at once, the one with the older figures must not take the newer ones back.
        let raise = |counter: &Counter, total| {
            counter.inner().fetch_max(total, Ordering::Relaxed);
        };
        raise(&self.started_tokens, load.scheduled.started_tokens);
        raise(&self.cached_tokens, load.scheduled.cached_tokens);
        raise(&self.computed_tokens, load.scheduled.prompt_tokens);
        raise(&self.generated_tokens, load.generated_tokens);
        raise(&self.drafts, load.scheduled.drafts);
        raise(&self.draft_tokens, load.scheduled.draft_tokens);
        raise(&self.accepted_tokens, load.scheduled.accepted_tokens);
        raise(&self.preemptions, load.scheduled.preemptions);
    }
}

impl Exports {
    fn new(served_name: &str) -> Exports {
        let labels = [("model_name", served_name.to_owned()), ("engine", "0".to_owned())];
        let labels = labels.into_iter().map(|(name, value)| (name.into(), value.into()));
        Exports { ours: Registry::default(), vllms: Registry::with_labels(labels) }
    }

    fn exchange(&mut self, counts: &ExchangeCounts) {
        self.ours(load::PEERS_ALIVE, &counts.peers_alive);
        self.ours(load::EXPERTS_HELD, &counts.held);
        self.ours(load::EXPERTS_ADOPTED, &counts.adopted);
        self.ours(load::MAP_READ, &counts.map_read);
        self.ours(load::MAP_LOADED, &counts.map_loaded);
        self.ours(load::MAP_ROUTING, &counts.map_routing);
        self.ours(load::ROWS_SENT, &counts.rows_sent);
        self.ours(load::BYTES_SENT, &counts.bytes_sent);
        self.ours(load::BYTES_RECEIVED, &counts.bytes_received);
        self.ours(load::UNANSWERED, &counts.unanswered);
        self.ours(load::PARCELS_COMPUTED, &counts.computed);
        self.ours(load::PARCEL_BATCHES, &counts.together);
        self.ours(load::CONNECTIONS_REFUSED, &counts.refused);
        self.ours(load::ROUND_TRIP, &counts.round_trip);
    }

    fn both(&mut self, metric: Metric, value: &(impl Exported + Clone)) {
        self.ours(metric, value);
        self.vllms(metric, value);
    }

    fn ours(&mut self, metric: Metric, value: &(impl Exported + Clone)) {
        self.ours.register(metric.name, metric.meaning, value.clone());
    }

    fn vllms(&mut self, metric: Metric, value: &(impl Exported + Clone)) {
        metric.vllm.iter().for_each(|name| self.vllms.register(*name, metric.meaning, value.clone()));
    }
}

#[cfg(test)]
mod tests;
