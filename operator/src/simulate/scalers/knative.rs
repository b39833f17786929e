//! Knative's pod autoscaler (KPA), on concurrency.
//!
//! From `pkg/autoscaler/scaling/autoscaler.go` of knative/serving and the defaults of `config-autoscaler`: a look every 2 s,
//! a stable window of 60 s and a panic window of a tenth of it, panic at twice what the ready pods are for, up at most a
//! thousandfold and down at most by half.

use super::{Autoscaler, Seen};

const TICK: u64 = 2;
const STABLE_SECONDS: usize = 60;
const PANIC_SECONDS: usize = 6;
const PANIC_THRESHOLD: f64 = 2.0;
const MAX_UP: f64 = 1000.0;
const MAX_DOWN: f64 = 2.0;
/// Share of the concurrency limit that is aimed at.
pub const UTILIZATION: f64 = 0.7;
/// `container-concurrency-target-default`.
pub const DEFAULT_LIMIT: f64 = 100.0;

/// Concurrency per pod is held at a target.
pub struct Kpa {
    target: f64,
    panic: Option<f64>,
    most_in_panic: usize,
}

impl Kpa {
    /// With this target per pod, the share of the limit applied.
    pub fn new(target: f64) -> Self {
        Self { target, panic: None, most_in_panic: 0 }
    }

    fn scale(&mut self, stable: f64, panic: f64, ready: usize, now: f64) -> usize {
        let ready = ready.max(1) as f64;
        let (most, least) = ((MAX_UP * ready).ceil(), (ready / MAX_DOWN).floor());
        let (for_stable, for_panic) = ((stable / self.target).ceil(), (panic / self.target).ceil());
        let bounded = |pods: f64| pods.max(least).min(most) as usize;
        if for_panic / ready >= PANIC_THRESHOLD {
            self.panic = Some(now);
        } else if self.panic.is_some_and(|since| since + (STABLE_SECONDS as f64) < now) {
            self.panic = None;
            self.most_in_panic = 0;
        }
        if self.panic.is_none() {
            return bounded(for_stable);
        }
        self.most_in_panic = self.most_in_panic.max(bounded(for_stable)).max(bounded(for_panic));
        self.most_in_panic
    }
}

impl Autoscaler for Kpa {
    fn every(&self) -> u64 {
        TICK
    }

    fn decide(&mut self, seen: &Seen) -> usize {
        let (stable, panic) = (seen.mean_requests(STABLE_SECONDS), seen.mean_requests(PANIC_SECONDS));
        let ready = seen.ready();
        if seen.now == 0.0 && ready > 1 {
            // An autoscaler begins in panic, so that it does not go down before it has seen anything.
            (self.panic, self.most_in_panic) = (Some(0.0), ready);
        }
        self.scale(stable, panic, ready, seen.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_mode_follows_the_minute_and_halves_at_most() {
        let mut kpa = Kpa::new(10.0);
        assert_eq!(kpa.scale(95.0, 95.0, 9, 0.0), 10);
        assert_eq!(kpa.scale(10.0, 10.0, 10, 2.0), 5, "10 / 2");
        assert_eq!(kpa.scale(0.0, 0.0, 1, 4.0), 0);
    }

    #[test]
    fn panic_begins_at_twice_the_ready_pods_and_goes_up_only() {
        let mut kpa = Kpa::new(10.0);
        assert_eq!(kpa.scale(30.0, 190.0, 10, 0.0), 5, "19 pods for 10 are no panic");
        assert_eq!(kpa.scale(40.0, 200.0, 10, 2.0), 20, "20 are");
        assert_eq!(kpa.scale(40.0, 100.0, 10, 4.0), 20);
        assert_eq!(kpa.scale(40.0, 300.0, 20, 6.0), 30, "more than before, though no longer twice");
        assert_eq!(kpa.scale(40.0, 10.0, 20, 62.0), 30, "a stable window after 2 s is not over");
        assert_eq!(kpa.scale(40.0, 10.0, 20, 63.0), 10, "now it is: the stable value, halved at most");
    }
}
