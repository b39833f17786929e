//! Whether a rank has requests.

use coterie_api::rank_load::RankLoad;
use jiff::Timestamp;

/// What a rank told last of the requests that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// When it was asked.
    pub at: Timestamp,
    /// Requests that ran or waited.
    pub requests: u64,
}

impl Occupancy {
    /// Of a load that was told `at` a time.
    pub fn of(load: &RankLoad, at: Timestamp) -> Self {
        Self { at, requests: load.running.saturating_add(load.waiting) }
    }
}
