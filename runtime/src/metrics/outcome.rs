//! How requests ended, counted under our words and under vLLM's.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a request ended. Each choice of an answer is a request of its own; what was refused counts as one, whatever it
/// asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The model, or a stop string, ended the answer.
    Stop,
    /// The answer reached the last token allowed.
    Length,
    /// The client went away.
    Cancelled,
    /// The request was refused before it ran.
    Rejected,
    /// It could not be kept to the form that it asked for: a grammar that gives up half way.
    FormLost,
    /// The engine could not finish it.
    Failed,
}

impl Outcome {
    const ALL: [Outcome; 6] = [
        Outcome::Stop,
        Outcome::Length,
        Outcome::Cancelled,
        Outcome::Rejected,
        Outcome::FormLost,
        Outcome::Failed,
    ];

    /// The value of the label `outcome`.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Stop => "stop",
            Outcome::Length => "length",
            Outcome::Cancelled => "cancelled",
            Outcome::Rejected => "rejected",
            Outcome::FormLost => "form_lost",
            Outcome::Failed => "failed",
        }
    }

    /// The value of vLLM's label `finished_reason`; it does not count what it refuses.
    fn vllm(self) -> Option<&'static str> {
        match self {
            Outcome::Stop => Some("stop"),
            Outcome::Length => Some("length"),
            Outcome::Cancelled => Some("abort"),
            Outcome::Rejected | Outcome::FormLost => None,
            Outcome::Failed => Some("error"),
        }
    }
}

/// A counter for each outcome; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcomes(Arc<[AtomicU64; Outcome::ALL.len()]>);

/// The same counters, as vLLM labels them.
#[derive(Clone, Debug)]
pub(super) struct FinishedReasons(pub Outcomes);

impl Outcomes {
    pub fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn counted(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].load(Ordering::Relaxed)
    }

    fn encode_as(
        &self,
        mut encoder: MetricEncoder,
        label: &str,
        name: impl Fn(Outcome) -> Option<&'static str>,
    ) -> Result<(), fmt::Error> {
        for outcome in Outcome::ALL {
            let Some(name) = name(outcome) else { continue };
            let labels = [(label, name)];
            let mut counter = encoder.encode_family(&labels)?;
            counter.encode_counter::<[(&str, &str); 0], u64, u64>(&self.counted(outcome), None)?;
        }
        Ok(())
    }
}

impl EncodeMetric for Outcomes {
    fn encode(&self, encoder: MetricEncoder) -> Result<(), fmt::Error> {
        self.encode_as(encoder, "outcome", |outcome| Some(outcome.name()))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

impl EncodeMetric for FinishedReasons {
    fn encode(&self, encoder: MetricEncoder) -> Result<(), fmt::Error> {
        self.0.encode_as(encoder, "finished_reason", Outcome::vllm)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}
