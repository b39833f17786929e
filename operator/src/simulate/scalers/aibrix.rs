//! AIBrix' application-specific pod autoscaler (APA).
//!
//! From `pkg/controller/podautoscaler/algorithm/apa.go` and `autoscaler.go`: beyond a tolerance of a tenth the number follows
//! the ratio of value and target, to twice or half of it at most; pods on their way count as without load on the way up,
//! and at the target on the way down; down only as far as all of the last 300 s would have gone.

use super::{Autoscaler, Seen};
use std::collections::VecDeque;

const EVERY: u64 = 10;
const WINDOW_SECONDS: usize = 60;
const TOLERANCE: f64 = 0.1;
const MAX_UP: f64 = 2.0;
const MAX_DOWN: f64 = 2.0;
const DOWN_COOLDOWN: f64 = 300.0;

/// Requests in flight per ready pod, the mean of a minute, are held at a target.
pub struct Apa {
    target: f64,
    recommendations: VecDeque<(f64, usize)>,
}

impl Apa {
    /// With this target.
    pub fn new(target: f64) -> Self {
        Self { target, recommendations: VecDeque::new() }
    }

    /// Holds the highest recommendation of the cool-down.
    fn cooled(&mut self, desired: usize, current: usize, now: f64) -> usize {
        self.recommendations.push_back((now, desired));
        self.recommendations.retain(|(at, _)| now - at <= DOWN_COOLDOWN);
        let highest = self.recommendations.iter().map(|(_, desired)| *desired).max().unwrap_or(desired);
        if desired < current { highest.min(current) } else { desired }
    }
}

/// `computeTargetReplicas`.
pub fn of_value(value: f64, target: f64, current: usize) -> usize {
    let (ratio, pods) = (value / target, current as f64);
    if ratio > 1.0 + TOLERANCE {
        (pods * ratio).ceil().min((MAX_UP * pods).ceil()) as usize
    } else if ratio < 1.0 - TOLERANCE {
        (pods * ratio).ceil().max((pods / MAX_DOWN).floor()) as usize
    } else {
        current
    }
}

/// `applyPendingReplicaGuard`.
pub fn guarded(desired: usize, value: f64, target: f64, current: usize, ready: usize) -> usize {
    if ready >= current || desired == current {
        return desired;
    }
    let (pods, answering) = (current as f64, ready as f64);
    let pending = pods - answering;
    if desired > current {
        let adjusted = (pods * (value * answering / pods) / target).ceil() as usize;
        adjusted.clamp(current, desired)
    } else {
        let adjusted = (pods * ((value * answering + target * pending) / pods) / target).ceil() as usize;
        adjusted.clamp(desired, current)
    }
}

impl Autoscaler for Apa {
    fn every(&self) -> u64 {
        EVERY
    }

    fn decide(&mut self, seen: &Seen) -> usize {
        let (current, ready) = (seen.current(), seen.ready());
        if current == 0 {
            return 0;
        }
        let value = seen.mean_requests(WINDOW_SECONDS) / ready.max(1) as f64;
        let desired = guarded(of_value(value, self.target, current), value, self.target, current, ready);
        self.cooled(desired.max(1), current, seen.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_follows_the_ratio_within_its_rates() {
        assert_eq!(of_value(10.9, 10.0, 6), 6, "within the tolerance");
        assert_eq!(of_value(12.0, 10.0, 6), 8, "7.2");
        assert_eq!(of_value(50.0, 10.0, 6), 12, "twice at most");
        assert_eq!(of_value(8.0, 10.0, 6), 5, "4.8");
        assert_eq!(of_value(1.0, 10.0, 7), 3, "half at most");
    }

    #[test]
    fn pods_on_their_way_damp_either_way() {
        // 4 of 6 ready at 20, target 10: 80 in flight want 8, where 12 were recommended.
        assert_eq!(guarded(12, 20.0, 10.0, 6, 4), 8);
        // 2 of 6 ready at 20: 40 in flight want 4, and 6 are there.
        assert_eq!(guarded(12, 20.0, 10.0, 6, 2), 6);
        // 4 of 6 ready at 5: 20 in flight and two at the target want 4.
        assert_eq!(guarded(3, 5.0, 10.0, 6, 4), 4);
        assert_eq!(guarded(12, 20.0, 10.0, 6, 6), 12, "none is on its way");
    }

    #[test]
    fn down_waits_for_its_cool_down() {
        let mut apa = Apa::new(10.0);
        assert_eq!(apa.cooled(8, 8, 0.0), 8);
        assert_eq!(apa.cooled(4, 8, 300.0), 8);
        assert_eq!(apa.cooled(4, 8, 301.0), 4);
        assert_eq!(apa.cooled(9, 4, 302.0), 9);
    }
}
