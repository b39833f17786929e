//! KEDA: between none and one by itself, above that an HPA with an external metric.
//!
//! From `pkg/scaling/executor/scale_scaledobjects.go` and the defaults of a ScaledObject: a poll every 30 s, active above an
//! activation threshold of 0, to none after 300 s without being active.

use super::hpa::{Behavior, SYNC, of_external};
use super::{Autoscaler, Seen};

const POLL: u64 = 30;
const COOLDOWN: f64 = 300.0;

/// Requests at front door and pods, divided by a target.
pub struct Keda {
    target: f64,
    behavior: Behavior,
    last_active: f64,
}

impl Keda {
    /// With this AverageValue.
    pub fn new(target: f64) -> Self {
        Self { target, behavior: Behavior::default(), last_active: 0.0 }
    }
}

impl Autoscaler for Keda {
    /// Polls are every other sync.
    fn every(&self) -> u64 {
        SYNC
    }

    fn decide(&mut self, seen: &Seen) -> usize {
        let (current, requests) = (seen.current(), seen.requests() as f64);
        if (seen.now as u64).is_multiple_of(POLL) {
            if requests > 0.0 {
                self.last_active = seen.now;
            }
            if current == 0 {
                return usize::from(requests > 0.0);
            }
            if seen.now - self.last_active > COOLDOWN {
                return 0;
            }
        }
        if current == 0 {
            return 0;
        }
        // The HPA below has at least one.
        self.behavior.apply(of_external(requests, self.target, current).max(1), current, seen.now)
    }
}
