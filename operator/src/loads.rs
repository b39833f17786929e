//! Asks every rank how busy it is.
//!
//! Kept is the last answer of each. A rank that is out of service is told of as soon as it is empty.

use crate::ask::ask;
use crate::observe::OwnPod;
use crate::queue::Queue;
use coterie_api::name::HTTP_PORT;
use coterie_api::rank_load::RankLoad;
use coterie_operator_core::observed::{ObservedPod, Occupancy, Phase, Role};
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Between two questions to a rank that is out of service.
const SOON: Duration = Duration::from_secs(1);
/// Every other one is asked each so many times.
const OFTEN: u32 = 2;
/// Questions under way.
const TOGETHER: usize = 64;
/// What a rank said last counts for so long.
const FRESH: SignedDuration = SignedDuration::from_secs(6);

/// What ranks told last.
#[derive(Default)]
pub struct Loads {
    /// By the pods' uids.
    kept: Mutex<HashMap<String, (Timestamp, RankLoad)>>,
}

impl Loads {
    /// Asks the ranks among `pods` again and again, until dropped.
    pub async fn follow(&self, pods: impl Fn() -> Vec<(String, Arc<OwnPod>)>, queue: &Queue) {
        let mut ticks = interval(SOON);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for tick in (0..OFTEN).cycle() {
            ticks.tick().await;
            let ranks: Vec<_> = pods().into_iter().filter(|(_, own)| answers(&own.pod)).collect();
            self.forget_all_but(&ranks);
            let due = ranks.into_iter().filter(|(_, own)| tick == 0 || own.pod.cordoned.is_some());
            let asked = due.map(|(namespace, own)| async move {
                let address = own.pod.address.clone().unwrap_or_default();
                let answer = ask::<RankLoad>(&address, HTTP_PORT, "/load").await;
                (namespace, own, answer)
            });
            let mut answers = stream::iter(asked).buffer_unordered(TOGETHER);
            while let Some((namespace, own, answer)) = answers.next().await {
                match answer {
                    Ok(load) => {
                        let is_empty = load.running + load.waiting == 0;
                        self.lock().insert(own.pod.uid.clone(), (Timestamp::now(), load));
                        if own.pod.cordoned.is_some() && is_empty {
                            queue.one(&namespace, &own.deployment);
                        }
                    }
                    Err(error) => {
                        tracing::debug!(pod = own.pod.name, %error, "a rank does not tell its load")
                    }
                }
            }
        }
    }

    /// How busy these pods were, by uid, as far as they told in the last seconds.
    pub fn of(&self, pods: &[ObservedPod], now: Timestamp) -> BTreeMap<String, Occupancy> {
        let kept = self.lock();
        let told = pods.iter().filter_map(|pod| Some((pod.uid.clone(), kept.get(&pod.uid)?)));
        let fresh = told.filter(|(_, (at, _))| now.duration_since(*at) <= FRESH);
        fresh.map(|(uid, (at, load))| (uid, Occupancy::of(load, *at))).collect()
    }

    fn forget_all_but(&self, ranks: &[(String, Arc<OwnPod>)]) {
        let uids: HashSet<&str> = ranks.iter().map(|(_, own)| own.pod.uid.as_str()).collect();
        self.lock().retain(|uid, _| uids.contains(uid.as_str()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Timestamp, RankLoad)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answers(pod: &ObservedPod) -> bool {
    pod.role == Some(Role::Rank) && pod.phase == Phase::Running && pod.address.is_some()
}
