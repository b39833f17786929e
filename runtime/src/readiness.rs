//! Where the process is in its life, for all who ask.

use tokio::sync::watch;

/// Where the process is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The weights are being read.
    Loading,
    /// The model generates its first token, for nobody.
    Testing,
    /// Requests are served.
    Ready,
    /// The process was asked to end: requests that came are served, no more should come.
    Draining,
    /// The engine died; the process is about to end.
    Dead,
}

/// The phase, seen by all clones.
#[derive(Clone, Debug)]
pub struct Readiness {
    phase: watch::Sender<Phase>,
}

impl Default for Readiness {
    fn default() -> Self {
        Readiness { phase: watch::Sender::new(Phase::Loading) }
    }
}

impl Readiness {
    /// Where the process is now.
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Goes on to `next`. A drain is never taken back, and the dead stay dead.
    pub fn advance(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let allowed = match *phase {
                Phase::Dead => false,
                Phase::Draining => next == Phase::Dead,
                _ => true,
            };
            if allowed {
                *phase = next;
            }
            allowed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_not_taken_back_by_the_end_of_loading() {
        let readiness = Readiness::default();
        readiness.advance(Phase::Draining);
        readiness.advance(Phase::Ready);
        assert_eq!(readiness.phase(), Phase::Draining);
        readiness.advance(Phase::Dead);
        readiness.advance(Phase::Draining);
        assert_eq!(readiness.phase(), Phase::Dead);
    }
}
