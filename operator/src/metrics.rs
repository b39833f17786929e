//! The operator's own metrics, in Prometheus form.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// Upper bounds in seconds: a reconcile without a write takes well under a millisecond.
const DURATIONS: [f64; 10] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Every metric, and the registry that prints them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Counter,
    durations: Histogram,
    errors: Family<ErrorLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    leader: Gauge,
    crd_matches: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabels {
    error: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WriteLabels {
    verb: &'static str,
    kind: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("coterie_operator"),
            reconciles: Counter::default(),
            durations: Histogram::new(DURATIONS),
            errors: Family::default(),
            writes: Family::default(),
            leader: Gauge::default(),
            crd_matches: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "reconciles",
            "Reconciles that ended, with or without an error",
            metrics.reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "Time of one reconcile",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Reconciles that failed, by error variant",
            metrics.errors.clone(),
        );
        registry.register("api_writes", "Writes to the API server, by verb and kind", metrics.writes.clone());
        registry.register("leader", "1 while this operator leads", metrics.leader.clone());
        registry.register(
            "crd_matches",
            "1 while the installed CRD is the one that this operator was built with",
            metrics.crd_matches.clone(),
        );
        registry.register_collector(Box::new(ResidentMemory));
        metrics
    }
}

impl Metrics {
    /// One reconcile ended after `duration`; `error` is the variant's name.
    pub fn reconciled(&self, duration: Duration, error: Option<&'static str>) {
        self.reconciles.inc();
        self.durations.observe(duration.as_secs_f64());
        if let Some(error) = error {
            self.errors.get_or_create(&ErrorLabels { error }).inc();
        }
    }

    /// One write was sent to the API server.
    pub fn wrote(&self, verb: &'static str, kind: &'static str) {
        self.writes.get_or_create(&WriteLabels { verb, kind }).inc();
    }

    /// This operator leads, or no longer does.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// The installed CRD is the one that this operator was built with, or is not.
    pub fn crd_matches(&self, matches: bool) {
        self.crd_matches.set(i64::from(matches));
    }

    /// All metrics as OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Reads the resident memory at each scrape.
#[derive(Debug)]
struct ResidentMemory;

impl Collector for ResidentMemory {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let gauge = ConstGauge::<i64>::new(i64::try_from(resident_bytes()).unwrap_or(i64::MAX));
        let metric = encoder.encode_descriptor(
            "resident_memory",
            "Resident memory of the process",
            Some(&Unit::Bytes),
            gauge.metric_type(),
        )?;
        gauge.encode(metric)
    }
}

/// Resident memory of this process in bytes; 0 where the system does not say.
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_holds_every_metric_and_label() {
        let metrics = Metrics::default();
        metrics.reconciled(Duration::from_millis(2), Some("Apply"));
        metrics.wrote("patch", "Pod");
        metrics.leads(true);
        metrics.crd_matches(true);
        let text = metrics.text();
        for line in [
            "coterie_operator_reconciles_total 1",
            "coterie_operator_reconcile_errors_total{error=\"Apply\"} 1",
            "coterie_operator_api_writes_total{verb=\"patch\",kind=\"Pod\"} 1",
            "coterie_operator_leader 1",
            "coterie_operator_crd_matches 1",
            "coterie_operator_reconcile_duration_seconds_bucket{le=\"0.005\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
        assert!(text.contains("coterie_operator_resident_memory_bytes "), "{text}");
    }
}
