//! How long an object waits after its reconcile failed.

use coterie_api::deployment::ModelDeployment;
use kube::runtime::reflector::ObjectRef;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

/// Twice as long after every failure of the same object, up to a minute, each a random fifth shorter or longer: objects
/// that failed together do not come back together.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: Mutex<HashMap<ObjectRef<ModelDeployment>, u32>>,
}

impl Backoff {
    /// The wait after one more failure of `of`.
    pub fn next(&self, of: &ObjectRef<ModelDeployment>) -> Duration {
        let mut failures = self.lock();
        let count = failures.entry(of.clone()).or_default();
        let wait = FIRST.saturating_mul(1 << (*count).min(16)).min(LONGEST);
        *count = count.saturating_add(1);
        // Each RandomState has keys of its own.
        let random = RandomState::new().hash_one(*count) % 401;
        wait.mul_f64(0.8 + f64::from(u32::try_from(random).unwrap_or(0)) / 1000.0)
    }

    /// `of` was reconciled, or is gone.
    pub fn forget(&self, of: &ObjectRef<ModelDeployment>) {
        self.lock().remove(of);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef<ModelDeployment>, u32>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_start_anew_after_a_success() {
        let backoff = Backoff::default();
        let of = ObjectRef::new("smol-moe").within("chat");
        let near = |wait: Duration, seconds: f64| {
            let ratio = wait.as_secs_f64() / seconds;
            assert!((0.8..=1.2001).contains(&ratio), "{wait:?} is not near {seconds} s");
        };
        for seconds in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
            near(backoff.next(&of), seconds);
        }
        for _ in 0..100 {
            near(backoff.next(&of), 60.0);
        }
        near(backoff.next(&ObjectRef::new("other").within("chat")), 0.5);
        backoff.forget(&of);
        near(backoff.next(&of), 0.5);
    }
}
