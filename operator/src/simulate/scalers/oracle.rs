//! What could be had by somebody who knows the trace and the speed of replicas: a bound to compare with, no policy.

use super::{Autoscaler, Seen};
use crate::simulate::fleet::Setting;
use crate::simulate::outcome::Slo;
use crate::simulate::trace::Trace;

/// Seconds that are looked at as one.
const BLOCK: usize = 10;

/// Makes replicas one cold start before they are needed, and drops them when they no longer are.
pub struct Oracle {
    /// Replicas that each block needs.
    needed: Vec<usize>,
    ahead: f64,
}

impl Oracle {
    /// It reads the whole trace.
    pub fn new(trace: &Trace, setting: &Setting, slo: Slo) -> Self {
        let speed = setting.speed;
        let capacity = 1.0 - speed.step / slo.itl.max(2.0 * speed.step);
        let mut work = vec![0.0; trace.seconds() as usize + 1];
        for arrival in &trace.arrivals {
            work[arrival.at as usize] +=
                arrival.prompt_tokens as f64 * speed.prompt + arrival.output_tokens as f64 * speed.token;
        }
        let needed = work.chunks(BLOCK).map(|block| needed(block, capacity, slo.ttft / 2.0)).collect();
        Self { needed, ahead: setting.cold_start }
    }
}

/// The fewest replicas with which no work of these seconds waits longer than `wait`.
fn needed(block: &[f64], capacity: f64, wait: f64) -> usize {
    let mut most = 0.0_f64;
    for begin in 0..block.len() {
        let mut came = 0.0;
        for (seconds, work) in block[begin..].iter().enumerate() {
            came += work;
            most = most.max(came / (((seconds + 1) as f64 + wait) * capacity));
        }
    }
    most.ceil() as usize
}

impl Autoscaler for Oracle {
    fn every(&self) -> u64 {
        1
    }

    fn decide(&mut self, seen: &Seen) -> usize {
        let block = |at: f64| ((at / BLOCK as f64) as usize).min(self.needed.len().saturating_sub(1));
        // A block's requests are still answered in the one after it.
        let window = &self.needed[block(seen.now - BLOCK as f64)..=block(seen.now + self.ahead + 1.0)];
        window.iter().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_may_wait_as_long_as_is_allowed() {
        assert_eq!(needed(&[2.0; 10], 1.0, 1.0), 2, "20 s of work in 11 s");
        assert_eq!(
            needed(&[0.0, 6.0, 0.0], 1.0, 1.0),
            3,
            "6 s of work in a second and the one that it may wait"
        );
        assert_eq!(needed(&[0.0; 10], 1.0, 1.0), 0);
    }
}
