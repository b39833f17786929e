//! Where other ranks' parcels are computed: one thread with one worker. Parcels that came for a layer while it was
//! busy are computed together, so an expert's weights are read once for all of them.
//!
//! One thread, because a worker stays on its thread and has a pool of its own: one for each connection would be as
//! many pools as there are ranks.

use super::counts::ExchangeCounts;
use coterie_engine::moe::exchange::{ExpertHost, ExpertWorker, Parcel};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Parcels that wait for the worker; at most one of each connection.
#[derive(Default)]
pub struct Desk {
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Default)]
struct Queue {
    orders: VecDeque<Order>,
    closed: bool,
}

/// A parcel to compute, its memory lent to the desk until it is done.
pub struct Order {
    /// The rows.
    pub parcel: Parcel,
    /// Memory for the answer.
    pub answer: Vec<u8>,
    /// Where both go back to.
    pub done: SyncSender<Done>,
}

/// A parcel that was dealt with.
pub struct Done {
    /// As it was ordered.
    pub parcel: Parcel,
    /// One bf16 row a send, if all experts are held.
    pub answer: Vec<u8>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was computed.
    Computed,
    /// Not all of its experts are held.
    NotHeld,
    /// The worker panicked, which is a bug.
    Failed,
}

impl Desk {
    /// Puts an order behind the others. Nothing comes back once the desk is closed.
    pub fn put(&self, order: Order) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.closed {
            queue.orders.push_back(order);
            drop(queue);
            self.filled.notify_one();
        }
    }

    /// The thread ends, and whoever waits for an answer is told that none comes.
    pub fn close(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.closed = true;
        queue.orders.clear();
        self.filled.notify_all();
    }

    /// Computes what is ordered with `threads` threads, until the desk is closed.
    pub fn work(&self, host: &Arc<dyn ExpertHost>, threads: usize, counts: &ExchangeCounts) {
        let mut worker = host.worker(threads);
        while let Some(mut orders) = self.next() {
            let mut answers: Vec<Vec<u8>> =
                orders.iter_mut().map(|order| std::mem::take(&mut order.answer)).collect();
            let outcomes = compute(worker.as_mut(), &orders, &mut answers).unwrap_or_else(|| {
                worker = host.worker(threads);
                vec![Outcome::Failed; orders.len()]
            });
            counts.computed.inc_by(orders.len() as u64);
            counts.together.inc();
            for ((order, answer), outcome) in orders.into_iter().zip(answers).zip(outcomes) {
                // Whoever ordered may be gone.
                let _ = order.done.try_send(Done { parcel: order.parcel, answer, outcome });
            }
        }
    }

    /// The first order and all others of its layer, once there is one.
    fn next(&self) -> Option<Vec<Order>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if queue.closed {
                return None;
            }
            if let Some(layer) = queue.orders.front().map(|order| order.parcel.layer) {
                let (taken, left): (VecDeque<Order>, _) =
                    queue.orders.drain(..).partition(|order| order.parcel.layer == layer);
                queue.orders = left;
                return Some(taken.into());
            }
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// `None` if the worker panicked.
fn compute(worker: &mut dyn ExpertWorker, orders: &[Order], answers: &mut [Vec<u8>]) -> Option<Vec<Outcome>> {
    let parcels: Vec<&Parcel> = orders.iter().map(|order| &order.parcel).collect();
    let held = catch_unwind(AssertUnwindSafe(|| worker.compute(&parcels, answers))).ok()?;
    Some(held.into_iter().map(|held| if held { Outcome::Computed } else { Outcome::NotHeld }).collect())
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeHost, SHAPE, answer_to, parcel};
    use super::*;
    use std::sync::mpsc::{Receiver, sync_channel};
    use std::time::Duration;

    fn order(desk: &Desk, parcel: Parcel) -> Receiver<Done> {
        let (done, wait) = sync_channel(1);
        desk.put(Order { parcel, answer: vec![1; 7], done });
        wait
    }

    #[test]
    fn what_waits_for_one_layer_is_computed_together_and_all_get_their_own_answers() {
        let host = Arc::new(FakeHost::holding(&[(0, 0), (0, 1), (1, 1)]));
        let desk = Desk::default();
        let counts = ExchangeCounts::default();
        let waiting: Vec<(Parcel, Receiver<Done>)> = [(0, 1), (1, 1), (0, 0), (0, 1)]
            .into_iter()
            .map(|(layer, expert)| parcel(layer, &[expert], 2))
            .map(|parcel| (parcel.clone(), order(&desk, parcel)))
            .collect();
        let lost = order(&desk, parcel(1, &[2], 1));
        std::thread::scope(|scope| {
            let as_trait: Arc<dyn ExpertHost> = host.clone();
            scope.spawn(|| desk.work(&{ as_trait }, 1, &counts));
            for (parcel, wait) in waiting {
                let done = wait.recv_timeout(Duration::from_secs(20)).unwrap();
                assert_eq!((done.outcome, done.answer), (Outcome::Computed, answer_to(&parcel)));
            }
            let done = lost.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!((done.outcome, done.answer), (Outcome::NotHeld, vec![]));
            desk.close();
        });
        assert_eq!((counts.computed.get(), counts.together.get()), (5, 2));
        assert_eq!(SHAPE.layers, 2, "two layers, so two turns");
        assert!(order(&desk, parcel(0, &[0], 1)).recv().is_err(), "a closed desk answers nobody");
    }

    #[test]
    fn a_worker_that_panics_fails_its_parcels_and_no_others() {
        let host = Arc::new(FakeHost::holding(&[(0, 0), (1, 0)]));
        host.panic_in_layer(1);
        let desk = Desk::default();
        let (bad, good) = (order(&desk, parcel(1, &[0], 1)), order(&desk, parcel(0, &[0], 1)));
        std::thread::scope(|scope| {
            let as_trait: Arc<dyn ExpertHost> = host.clone();
            scope.spawn(|| desk.work(&{ as_trait }, 1, &ExchangeCounts::default()));
            assert_eq!(bad.recv_timeout(Duration::from_secs(20)).unwrap().outcome, Outcome::Failed);
            assert_eq!(good.recv_timeout(Duration::from_secs(20)).unwrap().outcome, Outcome::Computed);
            desk.close();
        });
    }
}
