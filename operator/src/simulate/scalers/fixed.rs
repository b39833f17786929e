//! Always as many.

use super::{Autoscaler, Seen};

/// A fleet that nobody scales.
pub struct Fixed(pub usize);

impl Autoscaler for Fixed {
    fn every(&self) -> u64 {
        1
    }

    fn decide(&mut self, _: &Seen) -> usize {
        self.0
    }
}
