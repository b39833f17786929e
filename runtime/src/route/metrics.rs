//! A router's metrics, as `coterie_api::load::router` declares them.

use super::door::Door;
use super::fleet::Fleet;
use super::table::ModelKey;
use crate::metrics::{Exposition, Histogram, encoded};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::IntoResponse;
use coterie_api::load::{Metric, router};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric as Exported, Registry};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds, seconds: from a rank that has room to one that starts from nothing.
const HELD: &[f64] = &[0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A rank's answer was passed on to its end, whatever it said.
    Answered,
    /// The front door refused it.
    Refused,
    /// Ranks were lost, and the answer broke off.
    Failed,
    /// The client went away.
    Cancelled,
}

impl Outcome {
    /// The value of the label `outcome`.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
        }
    }
}

/// Every metric, and the registry that prints them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    tokens: Family<CallerLabels, Counter>,
    refusals: Family<CodeLabels, Counter>,
    retries: Family<ModelLabels, Counter>,
    continued: Family<ModelLabels, Counter>,
    held: Histogram,
    at_scrape: Mutex<AtScrape>,
}

/// What lanes know; taken over when somebody asks.
#[derive(Debug, Default)]
struct AtScrape {
    waiting: Family<ModelLabels, Gauge>,
    waiting_tokens: Family<ModelLabels, Gauge>,
    running: Family<ModelLabels, Gauge>,
    ranks: Family<ModelLabels, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelLabels {
    namespace: String,
    model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallerLabels {
    namespace: String,
    model: String,
    key: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    namespace: String,
    model: String,
    key: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

impl From<&ModelKey> for ModelLabels {
    fn from(key: &ModelKey) -> ModelLabels {
        ModelLabels { namespace: key.namespace.clone(), model: key.name.clone() }
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        let metrics = Metrics {
            registry: Registry::default(),
            requests: Family::default(),
            tokens: Family::default(),
            refusals: Family::default(),
            retries: Family::default(),
            continued: Family::default(),
            held: Histogram::of_seconds(HELD),
            at_scrape: Mutex::default(),
        };
        metrics.export_all()
    }
}

impl Metrics {
    fn export_all(mut self) -> Metrics {
        let at_scrape = self.at_scrape.get_mut().unwrap_or_else(PoisonError::into_inner);
        let registry = &mut self.registry;
        export(registry, router::REQUESTS_WAITING, &at_scrape.waiting);
        export(registry, router::WAITING_TOKENS, &at_scrape.waiting_tokens);
        export(registry, router::REQUESTS_RUNNING, &at_scrape.running);
        export(registry, router::RANKS, &at_scrape.ranks);
        export(registry, router::REQUESTS, &self.requests);
        export(registry, router::TOKENS, &self.tokens);
        export(registry, router::REFUSALS, &self.refusals);
        export(registry, router::RETRIES, &self.retries);
        export(registry, router::CONTINUED, &self.continued);
        export(registry, router::HELD, &self.held);
        self
    }

    /// A request ended for which `tokens` were generated.
    pub fn ended(&self, model: &ModelKey, caller: &str, outcome: Outcome, tokens: u64) {
        let (namespace, model, key) = (model.namespace.clone(), model.name.clone(), caller.to_owned());
        let outcome = outcome.name();
        let labels = CallerLabels { namespace: namespace.clone(), model: model.clone(), key: key.clone() };
        self.tokens.get_or_create(&labels).inc_by(tokens);
        self.requests.get_or_create(&RequestLabels { namespace, model, key, outcome }).inc();
    }

    /// The front door refused a request.
    pub fn refused(&self, code: &'static str) {
        self.refusals.get_or_create(&CodeLabels { code }).inc();
    }

    /// A request was sent to another rank from its beginning.
    pub fn retried(&self, model: &ModelKey) {
        self.retries.get_or_create(&model.into()).inc();
    }

    /// Another rank went on with a stream.
    pub fn continued(&self, model: &ModelKey) {
        self.continued.get_or_create(&model.into()).inc();
    }

    /// A request was given a rank so long after it came.
    pub fn held(&self, time: Duration) {
        self.held.observe(time);
    }

    /// All as text, with the lanes as they are now.
    pub fn text(&self, fleet: &Fleet, form: Exposition) -> String {
        // One at a time, so that each sees every lane.
        let at_scrape = self.at_scrape.lock().unwrap_or_else(PoisonError::into_inner);
        let AtScrape { waiting, waiting_tokens, running, ranks } = &*at_scrape;
        for gauge in [waiting, waiting_tokens, running, ranks] {
            gauge.clear();
        }
        for served in fleet.models().iter() {
            let (labels, load) = (ModelLabels::from(&served.lane.key), served.lane.load());
            let set = |gauge: &Family<ModelLabels, Gauge>, value: u64| {
                gauge.get_or_create(&labels).set(value as i64);
            };
            set(waiting, load.waiting);
            set(waiting_tokens, load.waiting_tokens);
            set(running, load.running);
            set(ranks, served.lane.serving() as u64);
        }
        encoded(&[&self.registry], form)
    }
}

fn export(registry: &mut Registry, metric: Metric, value: &(impl Exported + Clone)) {
    registry.register(metric.name, metric.meaning, value.clone());
}

/// `/metrics`, in the text form that was asked for.
pub async fn scrape(State(door): State<Arc<Door>>, headers: HeaderMap) -> impl IntoResponse {
    let form = Exposition::wanted(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    ([(CONTENT_TYPE, form.content_type())], door.metrics.text(&door.fleet, form))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::lane::LaneLimits;
    use crate::route::rank_client::RankClient;
    use crate::route::table::{Model, Table};
    use coterie_api::load::Kind;

    #[tokio::test]
    async fn every_metric_is_exported_as_it_is_declared_and_no_other() {
        let fleet =
            Fleet::new(LaneLimits { requests: 1, bytes: 1 }, RankClient::default(), Duration::from_secs(1));
        let key = ModelKey { namespace: "chat".into(), name: "smol".into() };
        let model = Model {
            key: key.clone(),
            served_name: "smol".into(),
            made: None,
            ttft: None,
            ranks: Default::default(),
        };
        fleet.update(&Table { models: vec![model] });
        let metrics = Metrics::default();
        metrics.ended(&key, "team-a", Outcome::Answered, 5);
        metrics.refused("queue_full");
        metrics.retried(&key);
        metrics.continued(&key);
        let text = metrics.text(&fleet, Exposition::Plain);
        for metric in router::ALL {
            let (suffix, kind) = match metric.kind {
                Kind::Gauge => ("", "gauge"),
                Kind::Counter => ("_total", "counter"),
                Kind::Histogram => ("", "histogram"),
            };
            for line in [
                format!("# HELP {}{suffix} {}.\n", metric.name, metric.meaning),
                format!("# TYPE {}{suffix} {kind}\n", metric.name),
            ] {
                assert!(text.contains(&line), "{line} is not in\n{text}");
            }
        }
        assert_eq!(text.matches("# TYPE ").count(), router::ALL.len());
        for line in [
            "coterie_router_requests_waiting{namespace=\"chat\",model=\"smol\"} 0",
            "coterie_router_requests_total{namespace=\"chat\",model=\"smol\",key=\"team-a\",outcome=\"answered\"} 1",
            "coterie_router_generation_tokens_total{namespace=\"chat\",model=\"smol\",key=\"team-a\"} 5",
            "coterie_router_refusals_total{code=\"queue_full\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
