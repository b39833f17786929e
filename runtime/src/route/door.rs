//! What every request at the front door sees.

use super::asked::Asked;
use super::fleet::{Fleet, Served};
use super::keys::Keys;
use super::lane::{LaneLimits, Need};
use super::metrics::Metrics;
use super::rank_client::RankClient;
use super::record::Record;
use crate::server::{ApiError, BodyRoom, Limits, unix_time};
use axum::http::HeaderMap;
use axum::http::uri::PathAndQuery;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// How patient the front door is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long a request may wait for a rank.
    pub hold: Duration,
    /// A stream that is silent for so long gets a comment, and its headers.
    pub quiet: Duration,
    /// A rank that answers nothing at all for so long is lost.
    pub lost: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            hold: Duration::from_secs(600),
            // Proxies give a silent connection 60 s or 30 s; before the headers are sent a refusal still has its status.
            quiet: Duration::from_secs(10),
            lost: Duration::from_secs(5),
        }
    }
}

/// The front door.
#[derive(Debug)]
pub struct Door {
    /// The models and their ranks.
    pub fleet: Fleet,
    /// Who may ask.
    pub keys: Keys,
    /// What is counted.
    pub metrics: Metrics,
    pub(super) client: RankClient,
    /// How long it waits for what.
    pub patience: Patience,
    /// What clients may take.
    pub limits: Limits,
    pub(super) bodies: BodyRoom,
    /// When it began, milliseconds since 1970.
    pub(super) since: u64,
    draining: AtomicBool,
}

impl Door {
    /// A front door that knows no model. `body_bytes` of large bodies are held at once.
    pub fn new(
        patience: Patience,
        limits: Limits,
        waiting: LaneLimits,
        body_bytes: usize,
        keys: Keys,
    ) -> Door {
        let client = RankClient::default();
        Door {
            // A rank on a full machine is slow to answer, but not gone.
            fleet: Fleet::new(waiting, client.clone(), patience.lost / 2),
            keys,
            metrics: Metrics::default(),
            client,
            patience,
            limits,
            bodies: BodyRoom::of(body_bytes),
            since: unix_time().as_millis() as u64,
            draining: AtomicBool::new(false),
        }
    }

    /// Should get no more requests.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The model that a client calls `asked`.
    pub(super) fn model(&self, asked: &str) -> Result<Served, ApiError> {
        self.fleet.find(asked).map_err(|candidates| {
            if self.fleet.is_known() {
                ApiError::no_such_model(asked, &candidates)
            } else {
                ApiError::no_table()
            }
        })
    }
}

/// One client's request on its way to a rank.
#[derive(Debug)]
pub(super) struct Order {
    pub asked: Asked,
    pub served: Served,
    pub need: Arc<Need>,
    pub path: PathAndQuery,
    pub headers: HeaderMap,
    pub arrived: Instant,
    pub record: Record,
    /// Of its body among the large ones; free when it is answered.
    pub _room: Option<OwnedSemaphorePermit>,
}
