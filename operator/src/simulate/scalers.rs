//! The policies that are compared: ours, and others' as they are.

pub mod aibrix;
pub mod coterie;
pub mod fixed;
pub mod hpa;
pub mod keda;
pub mod knative;
pub mod oracle;

use super::fleet::Seen;

/// Decides how many replicas there should be.
pub trait Autoscaler {
    /// Seconds between two decisions.
    fn every(&self) -> u64;

    /// Replicas; the bounds are applied by who asks.
    fn decide(&mut self, seen: &Seen) -> usize;
}
