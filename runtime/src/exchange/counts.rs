//! What the exchange counts; `coterie_api::load` says what each figure means. Clones share them.

use crate::metrics::Histogram;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// Seconds; a parcel and its answer, from an empty one on one machine to a long prompt's over a slow network.
const ROUND_TRIP: &[f64] = &[
    0.000_05, 0.000_1, 0.000_15, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 10.0,
];

/// What the exchange counts.
#[derive(Clone, Debug)]
pub struct ExchangeCounts {
    pub(crate) round_trip: Histogram,
    pub(crate) rows_sent: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) unanswered: Counter,
    pub(crate) computed: Counter,
    pub(crate) together: Counter,
    pub(crate) refused: Counter,
    pub(crate) peers_alive: Gauge,
    pub(crate) held: Gauge,
    pub(crate) adopted: Gauge,
    pub(crate) map_read: Gauge,
    pub(crate) map_loaded: Gauge,
    pub(crate) map_routing: Gauge,
}

impl Default for ExchangeCounts {
    fn default() -> Self {
        ExchangeCounts {
            round_trip: Histogram::of_seconds(ROUND_TRIP),
            rows_sent: Counter::default(),
            bytes_sent: Counter::default(),
            bytes_received: Counter::default(),
            unanswered: Counter::default(),
            computed: Counter::default(),
            together: Counter::default(),
            refused: Counter::default(),
            peers_alive: Gauge::default(),
            held: Gauge::default(),
            adopted: Gauge::default(),
            map_read: Gauge::default(),
            map_loaded: Gauge::default(),
            map_routing: Gauge::default(),
        }
    }
}
