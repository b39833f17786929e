//! Asks every rank of a replica of several what it holds and what was asked of it.
//!
//! Kept is only what decisions need. A ModelDeployment is looked at again when that changes: when a rank goes by another
//! map, or a stretch of counting ends; not for every token.

use crate::ask::ask;
use crate::observe::OwnPod;
use crate::queue::Queue;
use coterie_api::expert_report::ExpertReport;
use coterie_api::name::HTTP_PORT;
use coterie_operator_core::observed::{ExpertLoad, LoadGauge, ObservedPod, Phase, RankReport};
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Between two questions to one rank.
const EVERY: Duration = Duration::from_secs(2);
/// Questions under way.
const TOGETHER: usize = 32;
/// What a rank said last counts for so long.
const FRESH: Duration = Duration::from_secs(10);

/// What ranks report.
pub struct Reports {
    stretch: SignedDuration,
    kept: Mutex<Kept>,
}

/// Namespace, ModelDeployment, number of the replica.
type ReplicaKey = (String, String, u32);

#[derive(Default)]
struct Kept {
    /// By the pods' uids.
    reports: HashMap<String, (Instant, RankReport)>,
    loads: HashMap<ReplicaKey, (LoadGauge, Option<Arc<ExpertLoad>>)>,
}

impl Reports {
    /// Counts of tokens are told every `stretch`.
    pub fn new(stretch: SignedDuration) -> Self {
        Self { stretch, kept: Mutex::default() }
    }

    /// Asks the ranks among `pods` again and again, until dropped.
    pub async fn follow(&self, pods: impl Fn() -> Vec<(String, Arc<OwnPod>)>, queue: &Queue) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let ranks: Vec<(String, Arc<OwnPod>)> =
                pods().into_iter().filter(|(_, own)| own.pod.rank.is_some()).collect();
            self.forget_all_but(&ranks);
            let asked = ranks.into_iter().filter(|(_, own)| runs(&own.pod)).map(|(namespace, own)| async {
                let address = own.pod.address.clone().unwrap_or_default();
                let answer = ask::<ExpertReport>(&address, HTTP_PORT, "/experts").await;
                (namespace, own, answer)
            });
            let mut answers = stream::iter(asked).buffer_unordered(TOGETHER);
            while let Some((namespace, own, answer)) = answers.next().await {
                let news = match answer {
                    Ok(report) => self.take(&namespace, &own, &report),
                    Err(error) => {
                        tracing::debug!(pod = own.pod.name, %error, "a rank does not report");
                        self.age(&own.pod.uid)
                    }
                };
                if news {
                    queue.one(&namespace, &own.deployment);
                }
            }
        }
    }

    /// The last reports of these pods, by uid.
    pub fn of(&self, pods: &[ObservedPod]) -> BTreeMap<String, RankReport> {
        let kept = self.lock();
        let report = |pod: &ObservedPod| Some((pod.uid.clone(), kept.reports.get(&pod.uid)?.1.clone()));
        pods.iter().filter_map(report).collect()
    }

    /// What was asked of the experts of a ModelDeployment's replicas last.
    pub fn loads_of(&self, namespace: &str, deployment: &str) -> BTreeMap<u32, Arc<ExpertLoad>> {
        let kept = self.lock();
        let own = kept.loads.iter().filter(|((home, name, _), _)| home == namespace && name == deployment);
        own.filter_map(|((_, _, replica), (_, load))| Some((*replica, load.clone()?))).collect()
    }

    /// Whether a plan may come out otherwise for it.
    fn take(&self, namespace: &str, own: &OwnPod, report: &ExpertReport) -> bool {
        // A report of another rank is not this one's: its address has changed hands.
        if Some(u32::from(report.rank)) != own.pod.rank {
            return self.age(&own.pod.uid);
        }
        let mut kept = self.lock();
        let seen = RankReport::from(report);
        let before = kept.reports.insert(own.pod.uid.clone(), (Instant::now(), seen.clone()));
        let mut news = before.is_none_or(|(_, before)| before != seen);
        if let Some(replica) = own.pod.replica {
            let key = (namespace.to_owned(), own.deployment.clone(), replica);
            let (gauge, load) = kept.loads.entry(key).or_default();
            gauge.take(report);
            if let Some(closed) = gauge.close(Timestamp::now(), self.stretch) {
                *load = Some(Arc::new(closed));
                news = true;
            }
        }
        news
    }

    /// Drops what a rank said if that is too long ago.
    fn age(&self, uid: &str) -> bool {
        let mut kept = self.lock();
        let is_old = kept.reports.get(uid).is_some_and(|(at, _)| at.elapsed() > FRESH);
        is_old && kept.reports.remove(uid).is_some()
    }

    fn forget_all_but(&self, ranks: &[(String, Arc<OwnPod>)]) {
        let uids: HashSet<&str> = ranks.iter().map(|(_, own)| own.pod.uid.as_str()).collect();
        let key = |(namespace, own): &(String, Arc<OwnPod>)| {
            Some((namespace.clone(), own.deployment.clone(), own.pod.replica?))
        };
        let replicas: HashSet<ReplicaKey> = ranks.iter().filter_map(key).collect();
        let mut kept = self.lock();
        kept.reports.retain(|uid, _| uids.contains(uid.as_str()));
        kept.loads.retain(|replica, _| replicas.contains(replica));
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn runs(pod: &ObservedPod) -> bool {
    pod.phase == Phase::Running && pod.terminating.is_none() && pod.address.is_some()
}
