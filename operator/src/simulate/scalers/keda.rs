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

    fn scale(&mut self, requests: f64, current: usize, now: f64) -> usize {
        if (now as u64).is_multiple_of(POLL) {
            if requests > 0.0 {
                self.last_active = now;
            }
            if current == 0 {
                return usize::from(requests > 0.0);
            }
            if requests <= 0.0 && now - self.last_active > COOLDOWN {
                return 0;
            }
        }
        if current == 0 {
            return 0;
        }
        // The HPA below has at least one.
        self.behavior.apply(of_external(requests, self.target, current).max(1), current, now)
    }
}

impl Autoscaler for Keda {
    /// Polls are every other sync.
    fn every(&self) -> u64 {
        SYNC
    }

    fn decide(&mut self, seen: &Seen) -> usize {
        self.scale(seen.requests() as f64, seen.current(), seen.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_none_at_the_next_poll_and_to_none_after_the_cool_down() {
        let mut keda = Keda::new(10.0);
        assert_eq!(keda.scale(5.0, 0, 15.0), 0, "polls are every 30 s");
        assert_eq!(keda.scale(5.0, 0, 30.0), 1);
        assert_eq!(keda.scale(0.0, 1, 60.0), 1);
        assert_eq!(keda.scale(0.0, 1, 330.0), 1, "300 s after it was active");
        assert_eq!(keda.scale(0.0, 1, 345.0), 1, "no poll");
        assert_eq!(keda.scale(0.0, 1, 360.0), 0);
    }

    #[test]
    fn above_one_it_is_an_hpa_with_an_external_metric() {
        let mut keda = Keda::new(10.0);
        assert_eq!(keda.scale(72.0, 4, 15.0), 8, "7.2");
        assert_eq!(keda.scale(84.0, 8, 45.0), 8, "1.05 is within the tolerance");
    }
}
