//! Room for connections. One on which no request is under way lends its place: who comes when all are taken gets that of
//! the connection that has waited longest, and that one is closed. So who opens many and says nothing keeps nobody out.

use super::openai::ApiError;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Connections above the limit, or after the stop, that may ask for a probe, once each. More are dropped unanswered.
pub(super) const RESERVE: usize = 32;

/// A connection may wait so long without losing its place: time for a first request to come, and for the end of an
/// answer to leave our buffers.
const OWN_TIME: Duration = Duration::from_secs(1);

/// What is said to who asks for more than a probe.
pub(super) type Refusal = fn() -> ApiError;

/// All of them.
pub(super) struct Places {
    all: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
    lent: Arc<Lent>,
    own_time: Duration,
}

/// One connection's room, free again when it is dropped.
pub(super) enum Place {
    /// For any requests.
    Full(Arc<Seat>),
    /// For one probe; anything else gets the refusal.
    Probe(OwnedSemaphorePermit, Refusal),
}

/// The place of one connection: its own while a request is under way, lent while it waits for one.
pub(super) struct Seat {
    lent: Arc<Lent>,
    own: Mutex<Own>,
    lost: Arc<Notify>,
}

enum Own {
    Held(OwnedSemaphorePermit),
    /// Under this number.
    Lent(u64),
    Gone,
}

/// The places of those that wait, the longest first.
#[derive(Default)]
struct Lent(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    last: u64,
    loans: BTreeMap<u64, Loan>,
}

struct Loan {
    permit: OwnedSemaphorePermit,
    since: Instant,
    lost: Arc<Notify>,
}

impl Places {
    pub(super) fn new(connections: usize) -> Places {
        let most = connections.min(Semaphore::MAX_PERMITS);
        Places {
            all: Arc::new(Semaphore::new(most)),
            reserve: Arc::new(Semaphore::new(RESERVE)),
            lent: Arc::default(),
            own_time: OWN_TIME,
        }
    }

    pub(super) fn take(&self) -> Option<Place> {
        let free =
            self.all.clone().try_acquire_owned().ok().or_else(|| self.lent.take_longest(self.own_time));
        match free {
            Some(permit) => Some(Place::Full(Seat::new(permit, self.lent.clone()))),
            None => self.probe(ApiError::too_many_connections),
        }
    }

    /// After the stop.
    pub(super) fn late(&self) -> Option<Place> {
        self.probe(ApiError::ending)
    }

    fn probe(&self, refusal: Refusal) -> Option<Place> {
        let place = self.reserve.clone().try_acquire_owned().ok();
        place.map(|place| Place::Probe(place, refusal))
    }
}

impl Seat {
    fn new(permit: OwnedSemaphorePermit, lent: Arc<Lent>) -> Arc<Seat> {
        let seat = Seat { lent, own: Mutex::new(Own::Held(permit)), lost: Arc::default() };
        seat.lend();
        Arc::new(seat)
    }

    /// No request is under way.
    pub(super) fn lend(&self) {
        let mut own = lock(&self.own);
        *own = match std::mem::replace(&mut *own, Own::Gone) {
            Own::Held(permit) => Own::Lent(self.lent.add(permit, self.lost.clone())),
            other => other,
        };
    }

    /// A request has come. False if somebody else has the place.
    pub(super) fn claim(&self) -> bool {
        let mut own = lock(&self.own);
        if let Own::Lent(number) = *own {
            *own = self.lent.remove(number).map_or(Own::Gone, Own::Held);
        }
        matches!(*own, Own::Held(_))
    }

    /// Returns once somebody else has the place.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Own::Lent(number) = *lock(&self.own) {
            self.lent.remove(number);
        }
    }
}

impl Lent {
    fn add(&self, permit: OwnedSemaphorePermit, lost: Arc<Notify>) -> u64 {
        let mut waiting = lock(&self.0);
        waiting.last += 1;
        let number = waiting.last;
        waiting.loans.insert(number, Loan { permit, since: Instant::now(), lost });
        number
    }

    fn remove(&self, number: u64) -> Option<OwnedSemaphorePermit> {
        lock(&self.0).loans.remove(&number).map(|loan| loan.permit)
    }

    fn take_longest(&self, own_time: Duration) -> Option<OwnedSemaphorePermit> {
        let mut waiting = lock(&self.0);
        let longest = waiting.loans.first_entry().filter(|loan| loan.get().since.elapsed() >= own_time)?;
        let loan = longest.remove();
        loan.lost.notify_one();
        Some(loan.permit)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(place: Option<Place>) -> Arc<Seat> {
        match place {
            Some(Place::Full(seat)) => seat,
            _ => panic!("no place"),
        }
    }

    #[test]
    fn who_has_hardly_begun_to_wait_keeps_its_place() {
        let places = Places::new(1);
        let one = full(places.take());
        assert!(matches!(places.take(), Some(Place::Probe(..))));
        assert!(one.claim());
    }

    #[test]
    fn who_waits_longest_gives_way_and_who_works_does_not() {
        let places = Places { own_time: Duration::ZERO, ..Places::new(2) };
        let (one, two) = (full(places.take()), full(places.take()));
        assert!(one.claim());
        let three = full(places.take());
        assert!(!two.claim(), "it had waited");
        assert!(one.claim() && three.claim());
        assert!(matches!(places.take(), Some(Place::Probe(..))), "all work");
        one.lend();
        let four = full(places.take());
        assert!(!one.claim());
        drop((one, two, three, four));
        assert_eq!(places.all.available_permits(), 2);
    }

    #[test]
    fn a_connection_that_goes_gives_its_place_back_whether_lent_or_not() {
        let places = Places::new(1);
        drop(full(places.take()));
        assert_eq!(places.all.available_permits(), 1);
        let seat = full(places.take());
        assert!(seat.claim());
        drop(seat);
        assert_eq!(places.all.available_permits(), 1);
    }
}
