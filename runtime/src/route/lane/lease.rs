//! What a request holds of a lane: first a place in its line, then a lease on a rank.

use super::{Lane, Rank};
use crate::route::prefix::RankId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// A place in the line. Dropping it leaves the line.
#[derive(Debug)]
pub struct Place {
    lane: Arc<Lane>,
    id: u64,
    pub(super) granted: oneshot::Receiver<Lease>,
    left: bool,
}

/// Permission to send one request to one rank. Dropping it says that the request is done.
#[derive(Debug)]
pub struct Lease {
    /// `host:port` of the rank.
    pub address: Arc<str>,
    lane: Arc<Lane>,
    rank: RankId,
    choices: u64,
    /// Prompt tokens that the rank has to compute.
    tokens: u64,
    silent: watch::Receiver<Option<Instant>>,
}

impl Place {
    pub(super) fn new(lane: &Arc<Lane>, id: u64, granted: oneshot::Receiver<Lease>) -> Place {
        Place { lane: lane.clone(), id, granted, left: false }
    }

    /// Waits for the turn; `None` if the lane is closed.
    pub async fn granted(&mut self) -> Option<Lease> {
        let lease = (&mut self.granted).await.ok();
        self.left = true;
        lease
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.left {
            self.lane.change(|inner| inner.line.remove(self.id));
        }
    }
}

impl Lease {
    pub(super) fn new(lane: &Arc<Lane>, rank: &Rank, choices: u64, tokens: u64) -> Lease {
        let (address, silent) = (rank.address.clone(), rank.silent());
        Lease { address, lane: lane.clone(), rank: rank.id, choices, tokens, silent }
    }

    /// The rank could not be reached, refused, or broke off: nothing is sent to it before it reports again.
    pub fn shun(&self) {
        self.lane.change(|inner| {
            if let Some(rank) = inner.rank(self.rank) {
                rank.shun();
            }
        });
    }

    /// Returns once the rank has answered nobody for `patience`, and this request not since `heard`.
    pub async fn lost(&mut self, heard: Instant, patience: Duration) {
        loop {
            let since = *self.silent.borrow_and_update();
            let changed = self.silent.changed();
            match since {
                None => {
                    if changed.await.is_err() {
                        // Not a rank of this lane any more, and so not with a request of ours.
                        return;
                    }
                }
                Some(since) => {
                    let late = tokio::time::Instant::from_std(since.max(heard) + patience);
                    tokio::select! {
                        () = tokio::time::sleep_until(late) => return,
                        _ = changed => {}
                    }
                }
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.lane.change(|inner| {
            inner.running = inner.running.saturating_sub(1);
            inner.last_seen = Some(Instant::now());
            if let Some(rank) = inner.rank(self.rank) {
                rank.done(self.choices, self.tokens);
            }
        });
    }
}
