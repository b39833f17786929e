//! Whether this process still does its work: the watches and the Lease report here, `/health` asks.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A part is stuck when it has failed, again and again, for longer than this.
const PATIENCE: Duration = Duration::from_secs(60);
/// Failures further apart than this are separate troubles: the longest back-off of a watch is 30 s.
const SAME_TROUBLE: Duration = Duration::from_secs(90);

/// What the parts of the process last reported. A part that works says nothing: a quiet watch is a healthy one.
#[derive(Debug, Default)]
pub struct Health {
    troubles: Mutex<BTreeMap<&'static str, Trouble>>,
}

#[derive(Debug)]
struct Trouble {
    since: Instant,
    latest: Instant,
    message: String,
}

impl Health {
    /// `part` failed just now.
    pub fn failed(&self, part: &'static str, message: String) {
        self.failed_at(part, message, Instant::now());
    }

    /// `part` works again.
    pub fn works(&self, part: &'static str) {
        self.lock().remove(part);
    }

    /// One sentence for each part that is stuck.
    pub fn stuck(&self) -> Vec<String> {
        self.stuck_at(Instant::now())
    }

    fn failed_at(&self, part: &'static str, message: String, now: Instant) {
        let mut troubles = self.lock();
        let since = match troubles.get(part) {
            Some(trouble) if now - trouble.latest < SAME_TROUBLE => trouble.since,
            _ => now,
        };
        troubles.insert(part, Trouble { since, latest: now, message });
    }

    fn stuck_at(&self, now: Instant) -> Vec<String> {
        let stuck = |trouble: &Trouble| {
            now - trouble.latest < SAME_TROUBLE && trouble.latest - trouble.since > PATIENCE
        };
        let sentence = |(part, trouble): (&&str, &Trouble)| {
            let seconds = (now - trouble.since).as_secs();
            format!("{part} has failed for {seconds} s: {}", trouble.message)
        };
        self.lock().iter().filter(|(_, trouble)| stuck(trouble)).map(sentence).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Trouble>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lasting_trouble_is_stuck() {
        let health = Health::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        health.failed_at("watch of Pods", "refused".into(), start);
        assert!(health.stuck_at(after(50)).is_empty(), "one failure is no stuck watch");
        health.failed_at("watch of Pods", "refused".into(), after(30));
        health.failed_at("watch of Pods", "refused".into(), after(61));
        assert_eq!(health.stuck_at(after(62)), ["watch of Pods has failed for 62 s: refused"]);
        assert!(health.stuck_at(after(200)).is_empty(), "no failure since: the watch is quiet and works");
        health.failed_at("watch of Pods", "refused".into(), after(300));
        assert!(health.stuck_at(after(301)).is_empty(), "a new trouble starts from nothing");
    }

    #[test]
    fn what_works_again_is_forgotten() {
        let health = Health::default();
        let start = Instant::now();
        health.failed_at("lease", "timeout".into(), start);
        health.failed_at("lease", "timeout".into(), start + Duration::from_secs(61));
        health.works("lease");
        assert!(health.stuck_at(start + Duration::from_secs(62)).is_empty());
    }
}
