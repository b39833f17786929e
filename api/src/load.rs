//! What a rank reports while it serves: its Prometheus metrics, each with its type, its unit and its meaning, in one
//! place. `docs/metrics.md` is this table in the form for readers, and a test of the runtime holds the two together.
//!
//! Where vLLM has the same figure, it is exported a second time under vLLM's name, with vLLM's labels (`model_name`,
//! `engine`) and bucket bounds, so that routers, autoscalers and dashboards made for vLLM read a rank as it is.
//! Names, labels and bounds are those of vLLM's `vllm/v1/metrics/loggers.py`.

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its family's name; the samples of a counter end in `_total`.
    pub name: &'static str,
    /// What may become of its value.
    pub kind: Kind,
    /// What its value counts.
    pub unit: &'static str,
    /// What its value says.
    pub meaning: &'static str,
    /// Names of vLLM's under which the same value is exported.
    pub vllm: &'static [&'static str],
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up.
    Counter,
    /// Counts observations by size.
    Histogram,
}

/// Declares the metrics of one program: each one's doc line is also its meaning.
macro_rules! metrics {
    ($(#[doc = $whose:literal])+ ALL; $($(#[doc = $meaning:literal])+ $constant:ident: $kind:ident, $unit:literal, $name:literal, $vllm:expr;)*) => {
        $($(#[doc = $meaning])+ pub const $constant: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            meaning: concat!($($meaning),+).trim_ascii(),
            vllm: &$vllm,
        };)*

        $(#[doc = $whose])+
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

pub mod router;

metrics! {
    /// Every metric of a rank.
    ALL;

    /// Requests that wait for their first step
    REQUESTS_WAITING: Gauge, "requests", "coterie_requests_waiting", ["vllm:num_requests_waiting"];
    /// Prompt tokens of the requests that wait
    WAITING_TOKENS: Gauge, "tokens", "coterie_waiting_tokens", [];
    /// Requests in the running batch
    REQUESTS_RUNNING: Gauge, "requests", "coterie_requests_running", ["vllm:num_requests_running"];
    /// Share of the KV cache that running requests hold, 0 to 1
    KV_CACHE_USAGE: Gauge, "ratio", "coterie_kv_cache_usage_ratio",
        ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"];
    /// Share of the weights that is loaded, 0 to 1
    WEIGHTS_LOADED: Gauge, "ratio", "coterie_weights_loaded_ratio", [];
    /// Bytes of the model's files that loading brought into memory: of several ranks each its share; 0 until that is done
    WEIGHTS_READ: Gauge, "bytes", "coterie_weights_read_bytes", [];
    /// How long loading the weights took; 0 until that is done
    WEIGHTS_LOAD_TIME: Gauge, "seconds", "coterie_weights_load_seconds", [];

    /// Requests by how they ended: `outcome` stop, length, cancelled, form_lost, failed, each choice for
    /// itself, rejected once; for vLLM's name `finished_reason` stop, length, abort, error
    REQUESTS: Counter, "requests", "coterie_requests", ["vllm:request_success"];
    /// Prompt tokens of requests that started, those from the prefix cache included
    PROMPT_TOKENS: Counter, "tokens", "coterie_prompt_tokens", ["vllm:prompt_tokens", "vllm:prefix_cache_queries"];
    /// Prompt tokens of requests that started which were in the prefix cache
    PROMPT_TOKENS_CACHED: Counter, "tokens", "coterie_prompt_tokens_cached", ["vllm:prefix_cache_hits"];
    /// Prompt tokens computed, again after a preemption; those from the prefix cache are not
    PROMPT_TOKENS_COMPUTED: Counter, "tokens", "coterie_prompt_tokens_computed", [];
    /// Tokens generated
    GENERATION_TOKENS: Counter, "tokens", "coterie_generation_tokens", ["vllm:generation_tokens"];
    /// Drafts: guesses at a request's next tokens that were computed together with its last one
    DRAFTS: Counter, "drafts", "coterie_drafts", ["vllm:spec_decode_num_drafts"];
    /// Tokens in drafts
    DRAFT_TOKENS: Counter, "tokens", "coterie_draft_tokens", ["vllm:spec_decode_num_draft_tokens"];
    /// Tokens in drafts that came true; over drafts, the mean number that a step generated beyond its one
    DRAFT_TOKENS_ACCEPTED: Counter, "tokens", "coterie_draft_tokens_accepted",
        ["vllm:spec_decode_num_accepted_tokens"];
    /// How often a running request gave its KV cache up for others
    PREEMPTIONS: Counter, "preemptions", "coterie_preemptions", ["vllm:num_preemptions"];
    /// Spans that were not exported because the collector was slow or away
    SPANS_LOST: Counter, "spans", "coterie_spans_lost", [];

    /// Other ranks that can be sent to
    PEERS_ALIVE: Gauge, "ranks", "coterie_exchange_peers_alive", [];
    /// Experts that this rank holds, all layers together; 0 where a replica has one rank
    EXPERTS_HELD: Gauge, "experts", "coterie_experts_held", [];
    /// Those of them that are not its own: taken over from lost ranks, or not let go yet
    EXPERTS_ADOPTED: Gauge, "experts", "coterie_experts_adopted", [];
    /// Newest expert map that this rank has read
    MAP_READ: Gauge, "version", "coterie_expert_map_read_version", [];
    /// Newest expert map of which it holds what is its own
    MAP_LOADED: Gauge, "version", "coterie_expert_map_loaded_version", [];
    /// Expert map by which it sends tokens
    MAP_ROUTING: Gauge, "version", "coterie_expert_map_routing_version", [];
    /// Rows sent to experts on other ranks
    ROWS_SENT: Counter, "rows", "coterie_exchange_rows_sent", [];
    /// Bytes of parcels sent to other ranks
    BYTES_SENT: Counter, "bytes", "coterie_exchange_sent_bytes", [];
    /// Bytes of answers received from other ranks
    BYTES_RECEIVED: Counter, "bytes", "coterie_exchange_received_bytes", [];
    /// Parcels without an answer: the rank was left out, or did not hold the experts; their tokens went elsewhere
    UNANSWERED: Counter, "parcels", "coterie_exchange_parcels_unanswered", [];
    /// Parcels of other ranks that were computed here
    PARCELS_COMPUTED: Counter, "parcels", "coterie_exchange_parcels_computed", [];
    /// How often parcels were computed; less often than parcels, because those that wait for one layer go together
    PARCEL_BATCHES: Counter, "batches", "coterie_exchange_parcel_batches", [];
    /// Connections of other ranks that were ended because what came made no sense or did not fit
    CONNECTIONS_REFUSED: Counter, "connections", "coterie_exchange_connections_refused", [];
    /// From the sending of a parcel to its answer, what this rank computed meanwhile included
    ROUND_TRIP: Histogram, "seconds", "coterie_exchange_round_trip_seconds", [];

    /// From a request's arrival to its first step
    QUEUE_TIME: Histogram, "seconds", "coterie_queue_time_seconds", ["vllm:request_queue_time_seconds"];
    /// From a request's arrival to its first token
    TIME_TO_FIRST_TOKEN: Histogram, "seconds", "coterie_time_to_first_token_seconds",
        ["vllm:time_to_first_token_seconds"];
    /// Between two tokens of one request; observed for each token
    INTER_TOKEN_LATENCY: Histogram, "seconds", "coterie_inter_token_latency_seconds",
        ["vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"];
    /// Mean time between the tokens of an answer of at least two; observed once for each answer
    TIME_PER_OUTPUT_TOKEN: Histogram, "seconds", "coterie_time_per_output_token_seconds",
        ["vllm:request_time_per_output_token_seconds"];
    /// From a request's first step to its first token
    PREFILL_TIME: Histogram, "seconds", "coterie_prefill_time_seconds", ["vllm:request_prefill_time_seconds"];
    /// From a request's first token to its last
    DECODE_TIME: Histogram, "seconds", "coterie_decode_time_seconds", ["vllm:request_decode_time_seconds"];
    /// From a request's arrival to its last token
    REQUEST_TIME: Histogram, "seconds", "coterie_request_time_seconds", ["vllm:e2e_request_latency_seconds"];
    /// Tokens in the prompt of a request that was answered
    REQUEST_PROMPT_TOKENS: Histogram, "tokens", "coterie_request_prompt_tokens", ["vllm:request_prompt_tokens"];
    /// Tokens in an answer
    REQUEST_GENERATION_TOKENS: Histogram, "tokens", "coterie_request_generation_tokens",
        ["vllm:request_generation_tokens"];
    /// Time that a step of the engine took
    STEP_TIME: Histogram, "seconds", "coterie_step_time_seconds", [];
    /// Prompt tokens computed and tokens generated in a step
    STEP_TOKENS: Histogram, "tokens", "coterie_step_tokens", ["vllm:iteration_tokens_total"];
    /// Requests in a step's batch
    STEP_REQUESTS: Histogram, "requests", "coterie_step_requests", [];
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_say_the_unit() {
        let mut names = BTreeSet::new();
        for metric in ALL.iter().chain(router::ALL) {
            for name in metric.vllm.iter().chain([&metric.name]) {
                assert!(names.insert(*name), "{name} is there twice");
            }
            if matches!(metric.unit, "seconds" | "ratio") {
                assert!(metric.name.ends_with(metric.unit), "{}", metric.name);
            }
            assert!(
                metric.name.starts_with("coterie_") && !metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn docs_metrics_md_has_these_tables() {
        let page = include_str!("../../docs/metrics.md");
        for table in [ALL, router::ALL].map(table) {
            assert!(page.contains(&table), "docs/metrics.md is out of date; a table must be:\n\n{table}");
        }
    }

    fn table(metrics: &[Metric]) -> String {
        let mut table = "| name | vLLM's name | type | unit | meaning |\n|---|---|---|---|---|\n".to_owned();
        for Metric { name, kind, unit, meaning, vllm } in metrics {
            let (kind, suffix) = match kind {
                Kind::Gauge => ("gauge", ""),
                Kind::Counter => ("counter", "_total"),
                Kind::Histogram => ("histogram", ""),
            };
            let aliases: Vec<String> = vllm.iter().map(|alias| format!("`{alias}{suffix}`")).collect();
            let aliases = aliases.join(", ");
            table += &format!("| `{name}{suffix}` | {aliases} | {kind} | {unit} | {meaning} |\n");
        }
        table
    }
}
