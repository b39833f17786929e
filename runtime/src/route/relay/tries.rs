//! One request's tries with ranks, until one answers.

use crate::route::door::{Door, Order};
use crate::route::lane::Lease;
use crate::route::rank_client::{Unanswered, chain};
use crate::server::ApiError;
use axum::body::Bytes;
use axum::http::{HeaderValue, Response, StatusCode, response};
use coterie_api::replay::{JOURNAL, Journal};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Ranks that may break off one after the other without having got any further: a request on which ranks die must not
/// take all of them along.
const FRUITLESS: u32 = 3;
/// Ranks that may break off in all.
const BREAKS: u32 = 12;

/// The tries of one request.
pub(super) struct Tries {
    pub door: Arc<Door>,
    pub order: Order,
    /// Since when it waits for a rank.
    since: Instant,
    /// It had a rank already.
    again: bool,
    /// The rank that had it last broke off.
    lost: bool,
    fruitless: u32,
    breaks: u32,
}

/// A rank's answer as it comes. Dropping it ends the request there.
pub(super) struct Answer {
    pub head: response::Parts,
    body: Incoming,
    lease: Lease,
    heard: Instant,
    patience: Duration,
}

/// What came of sending a request.
enum Sent {
    /// The rank answers to it.
    Answered(Response<Incoming>),
    /// The rank has no room for it.
    Refused(StatusCode),
    /// The rank is gone.
    Lost,
}

impl Tries {
    pub fn new(door: Arc<Door>, order: Order) -> Tries {
        Tries { since: order.arrived, door, order, again: false, lost: false, fruitless: 0, breaks: 0 }
    }

    /// Waits for a rank and sends the request, to go on from `journal` if there is one; another rank and another, until
    /// one answers to the request itself.
    pub async fn next(&mut self, journal: Option<&Journal>) -> Result<Answer, ApiError> {
        let body = self.order.asked.body(&self.order.served.served_name, journal);
        loop {
            let mut lease = self.lease().await?;
            self.order.record.leased();
            if std::mem::take(&mut self.lost) {
                self.order.record.again(journal.is_some());
            }
            match self.send(&mut lease, body.clone()).await? {
                Sent::Answered(answer) => {
                    let (head, body) = answer.into_parts();
                    let (heard, patience) = (Instant::now(), self.door.patience.lost);
                    return Ok(Answer { head, body, lease, heard, patience });
                }
                Sent::Refused(status) => {
                    let (rank, status) = (&lease.address, status.as_u16());
                    tracing::debug!(%rank, status, "a rank refused; the request waits for another");
                }
                Sent::Lost => {}
            }
            lease.shun();
        }
    }

    /// A rank broke off. `further` if the answer had come on since the one before.
    pub fn broke(&mut self, rank: &str, why: &str, further: bool) -> Result<(), ApiError> {
        self.breaks += 1;
        self.lost = true;
        self.fruitless = if further { 1 } else { self.fruitless + 1 };
        self.since = Instant::now();
        let model = self.order.served.lane.key.to_string();
        tracing::warn!(model, rank, why, breaks = self.breaks, "a rank broke off while it answered");
        if self.fruitless >= FRUITLESS || self.breaks >= BREAKS {
            return Err(ApiError::ranks_broke(self.breaks, why));
        }
        Ok(())
    }

    /// Waits for room at a rank.
    async fn lease(&mut self) -> Result<Lease, ApiError> {
        let (lane, hold) = (&self.order.served.lane, self.door.patience.hold);
        let mut place = lane
            .join(&self.order.need, self.since, self.again)
            .map_err(|why| ApiError::not_taken(why, &lane.key))?;
        self.again = true;
        match timeout(hold.saturating_sub(self.since.elapsed()), place.granted()).await {
            Ok(Some(lease)) => Ok(lease),
            Ok(None) => Err(ApiError::deleted(&lane.key)),
            Err(_) => Err(ApiError::waited_too_long(&lane.key, hold)),
        }
    }

    /// Sends the request.
    async fn send(&mut self, lease: &mut Lease, body: Bytes) -> Result<Sent, ApiError> {
        let mut headers = self.order.headers.clone();
        if self.order.asked.streamed {
            headers.insert(JOURNAL, HeaderValue::from_static("1"));
        }
        let address = lease.address.clone();
        let sent_at = Instant::now();
        let answer = tokio::select! {
            answer = self.door.client.post(&address, &self.order.path, headers, body) => answer,
            () = lease.lost(sent_at, self.door.patience.lost) => Err(Unanswered::Broken(SILENT.to_owned())),
        };
        match answer {
            Ok(answer) => Ok(match answer.status() {
                // Somebody else filled it, or it is about to end: no word about this request.
                status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
                    Sent::Refused(status)
                }
                _ => Sent::Answered(answer),
            }),
            Err(Unanswered::Unreachable(error)) => {
                tracing::info!(rank = %address, error, "a rank cannot be reached; the request waits for another");
                Ok(Sent::Lost)
            }
            Err(broken @ Unanswered::Broken(_)) => {
                self.broke(&address, &broken.to_string(), false)?;
                Ok(Sent::Lost)
            }
        }
    }
}

const SILENT: &str = "it answers nobody any more";

impl Answer {
    /// The rank that gives it.
    pub fn rank(&self) -> &str {
        &self.lease.address
    }

    /// Nothing is sent to the rank until it reports again.
    pub fn shun(&self) {
        self.lease.shun();
    }

    /// Reads to the end, of which nothing matters any more.
    pub async fn finish(mut self: Box<Self>) {
        while let Ok(Some(_)) = self.read().await {}
    }

    /// More of it; none after its end. An error says why it broke off.
    pub async fn read(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let frame = tokio::select! {
                frame = self.body.frame() => frame,
                () = self.lease.lost(self.heard, self.patience) => return Err(SILENT.to_owned()),
            };
            self.heard = Instant::now();
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(chain(&error)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}
