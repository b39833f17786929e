//! Kubernetes' HorizontalPodAutoscaler, `autoscaling/v2`, with its default behavior.
//!
//! From `pkg/controller/podautoscaler/{replica_calculator,horizontal}.go`: a metric of type Pods with an AverageValue, which
//! pods that are not ready do not have.

use super::{Autoscaler, Seen};
use std::collections::VecDeque;

/// Seconds between two decisions (`--horizontal-pod-autoscaler-sync-period`).
pub const SYNC: u64 = 15;
/// A ratio so near to 1 changes nothing.
const TOLERANCE: f64 = 0.1;
/// Seconds for which the highest recommendation holds on the way down.
const STABILIZATION: f64 = 300.0;
/// On the way up, in 15 s: this factor or so many pods, whichever is more.
const UP_FACTOR: f64 = 2.0;
const UP_PODS: usize = 4;

/// Requests in flight per pod are held at a target. What the front door holds counts evenly to the ready pods: others'
/// exporters do not see it, so this is to the HPA's advantage.
pub struct Hpa {
    target: f64,
    behavior: Behavior,
}

impl Hpa {
    /// With this AverageValue.
    pub fn new(target: f64) -> Self {
        Self { target, behavior: Behavior::default() }
    }
}

impl Autoscaler for Hpa {
    fn every(&self) -> u64 {
        SYNC
    }

    fn decide(&mut self, seen: &Seen) -> usize {
        let (current, ready) = (seen.current(), seen.ready());
        let metrics = vec![seen.requests() as f64 / ready.max(1) as f64; ready];
        let desired = of_pods(&metrics, current - ready, self.target, current);
        self.behavior.apply(desired, current, seen.now)
    }
}

/// `calcPlainMetricReplicas`: the metric of each pod that has one, and the number of pods that have none.
pub fn of_pods(metrics: &[f64], missing: usize, target: f64, current: usize) -> usize {
    let ratio_of = |sum: f64, count: usize| sum / count as f64 / target;
    let sum: f64 = metrics.iter().sum();
    if metrics.is_empty() {
        return current;
    }
    let ratio = ratio_of(sum, metrics.len());
    if missing == 0 {
        return match (1.0 - ratio).abs() <= TOLERANCE {
            true => current,
            false => (ratio * metrics.len() as f64).ceil() as usize,
        };
    }
    // Pods without a metric are taken to use all of it on the way down, and nothing on the way up.
    let sum = if ratio < 1.0 { sum + target * missing as f64 } else { sum };
    let count = metrics.len() + missing;
    let with_missing = ratio_of(sum, count);
    let turned = (ratio < 1.0 && with_missing > 1.0) || (ratio > 1.0 && with_missing < 1.0);
    if (1.0 - with_missing).abs() <= TOLERANCE || turned {
        return current;
    }
    let desired = (with_missing * count as f64).ceil() as usize;
    let against = (with_missing < 1.0 && desired > current) || (with_missing > 1.0 && desired < current);
    if against { current } else { desired }
}

/// `GetExternalPerPodMetricReplicas`: one number for all pods, as KEDA gives it.
pub fn of_external(usage: f64, target: f64, current: usize) -> usize {
    let ratio = usage / (target * current.max(1) as f64);
    if (1.0 - ratio).abs() <= TOLERANCE { current } else { (usage / target).ceil() as usize }
}

/// The default `behavior`: the highest recommendation of five minutes on the way down, doubling or four pods on the way
/// up.
#[derive(Default)]
pub struct Behavior {
    recommendations: VecDeque<(f64, usize)>,
    added: VecDeque<(f64, usize)>,
}

impl Behavior {
    /// What is done with a recommendation.
    pub fn apply(&mut self, desired: usize, current: usize, now: f64) -> usize {
        self.recommendations.push_back((now, desired));
        self.recommendations.retain(|(at, _)| now - at <= STABILIZATION);
        self.added.retain(|(at, _)| now - at < SYNC as f64);
        if desired <= current {
            let highest = self.recommendations.iter().map(|(_, desired)| *desired).max().unwrap_or(desired);
            return highest.min(current);
        }
        let added: usize = self.added.iter().map(|(_, count)| count).sum();
        let before = current.saturating_sub(added);
        let most = ((before as f64 * UP_FACTOR).ceil() as usize).max(before + UP_PODS);
        let decided = desired.min(most.max(current));
        self.added.push_back((now, decided - current));
        decided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_documentation() {
        // "If the current metric value is 200m, and the desired value is 100m, the number of replicas will be doubled";
        // "if the current value is instead 50m, you'll halve it."
        assert_eq!(of_pods(&[200.0; 3], 0, 100.0, 3), 6);
        assert_eq!(of_pods(&[50.0; 4], 0, 100.0, 4), 2);
        assert_eq!(of_pods(&[109.0; 4], 0, 100.0, 4), 4, "within the tolerance of 0.1");
        assert_eq!(of_pods(&[], 4, 100.0, 4), 4, "no metric, no change");
    }

    #[test]
    fn pods_without_a_metric_damp_either_way() {
        // 3 pods at 2.0 and 3 without: (6 + 0) / 6 = 1.0, within the tolerance.
        assert_eq!(of_pods(&[200.0; 3], 3, 100.0, 6), 6);
        // 3 at 3.0 and 1 without: 9 / 4 = 2.25 times 4.
        assert_eq!(of_pods(&[300.0; 3], 1, 100.0, 4), 9);
        // 3 at 0.5 and 3 without, which count as 1.0: 4.5 / 6 = 0.75 times 6, rounded up.
        assert_eq!(of_pods(&[50.0; 3], 3, 100.0, 6), 5);
        // 4 at 1.2 and 2 without: 4.8 / 6 = 0.8 turns the direction.
        assert_eq!(of_pods(&[120.0; 4], 2, 100.0, 6), 6);
    }

    #[test]
    fn an_external_metric_is_divided_by_its_target() {
        assert_eq!(of_external(100.0, 10.0, 5), 10);
        assert_eq!(of_external(52.0, 10.0, 5), 5, "1.04 is within the tolerance");
        assert_eq!(of_external(0.0, 10.0, 5), 0);
    }

    #[test]
    fn up_is_doubled_or_four_pods_and_down_waits_five_minutes() {
        let mut behavior = Behavior::default();
        assert_eq!(behavior.apply(50, 1, 0.0), 5, "1 + 4");
        assert_eq!(behavior.apply(50, 5, 15.0), 10, "5 times 2");
        assert_eq!(behavior.apply(3, 10, 30.0), 10);
        assert_eq!(behavior.apply(3, 10, 315.0), 10, "50 was recommended 300 s ago");
        assert_eq!(behavior.apply(4, 10, 316.0), 4);
    }
}
