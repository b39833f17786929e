//! A scaler for each ModelDeployment that has `scaling`: fed with what ranks and routers told, asked at each reconcile.

use crate::loads::Loads;
use coterie_api::deployment::ModelDeploymentStatus;
use coterie_api::front_door::ModelLoad;
use coterie_operator_core::Deployment;
use coterie_operator_core::observed::{ObservedPod, Phase, Role};
use coterie_operator_core::plan::replica::replicas;
use coterie_operator_core::plan::replicas::{Decision, Fleet, Scaler};
use jiff::Timestamp;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The scalers, by namespace and name.
#[derive(Default)]
pub struct Scalers {
    kept: Mutex<HashMap<(String, String), Kept>>,
}

struct Kept {
    scaler: Scaler,
    /// Of another object of that name nothing is known.
    uid: String,
    /// Until when answers were taken.
    fed: Timestamp,
    /// Uids of pods that were ready once; of these no start is measured.
    ready: HashSet<String>,
}

impl Scalers {
    /// Decides how many replicas `deployment` gets; `None` if it does not ask for that.
    pub fn decide(
        &self,
        deployment: &Deployment,
        status: &ModelDeploymentStatus,
        pods: &[ObservedPod],
        loads: &Loads,
        now: Timestamp,
    ) -> Option<Arc<Decision>> {
        let key = (deployment.namespace.clone(), deployment.name.clone());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(policy) = &deployment.scaling else {
            kept.remove(&key);
            return None;
        };
        let own: Vec<&ObservedPod> = pods
            .iter()
            .filter(|pod| pod.role == Some(Role::Rank) && pod.terminating.is_none())
            .filter(|pod| !matches!(pod.phase, Phase::Failed | Phase::Succeeded))
            .collect();
        let begun = || Kept {
            scaler: Scaler::new(status.scaling.as_ref(), now),
            uid: deployment.uid.clone(),
            fed: now,
            ready: own.iter().filter(|pod| pod.ready).map(|pod| pod.uid.clone()).collect(),
        };
        let entry = kept.entry(key).or_insert_with(begun);
        if entry.uid != deployment.uid {
            *entry = begun();
        }
        entry.feed(deployment, &own, loads, now);
        let width =
            status.ranks.and_then(|ranks| u32::try_from(ranks).ok()).or(deployment.ranks).unwrap_or(1);
        let before = status.scaling.as_ref().and_then(|scaling| usize::try_from(scaling.desired).ok());
        let fleet = fleet(&own, width, now);
        Some(Arc::new(entry.scaler.decide(policy, &fleet, before, now)))
    }

    /// Forgets a ModelDeployment that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(&(namespace.to_owned(), name.to_owned()));
    }
}

impl Kept {
    /// Tells the scaler who there is, and what they told since the last time.
    fn feed(&mut self, deployment: &Deployment, pods: &[&ObservedPod], loads: &Loads, now: Timestamp) {
        let demand = &mut self.scaler.demand;
        let ready = pods.iter().filter(|pod| pod.ready);
        let ranks: BTreeSet<String> = ready.map(|pod| pod.uid.clone()).collect();
        let routers = loads.routers();
        demand.expect(&ranks, &routers.keys().cloned().collect(), now);
        for uid in &ranks {
            if let Some((at, load)) = loads.rank(uid).filter(|(at, _)| *at > self.fed) {
                demand.rank(uid, &load, at);
            }
        }
        for (uid, answer) in routers {
            let Some((at, load)) = answer.filter(|(at, _)| *at > self.fed) else { continue };
            let is_own =
                |load: &&ModelLoad| load.namespace == deployment.namespace && load.name == deployment.name;
            demand.router(&uid, load.models.iter().find(is_own).unwrap_or(&ModelLoad::default()), at);
        }
        self.fed = now;
        self.ready.retain(|uid| pods.iter().any(|pod| pod.uid == *uid));
        for pod in pods.iter().filter(|pod| pod.ready) {
            let is_new = self.ready.insert(pod.uid.clone());
            if let Some(created) = pod.created.filter(|_| is_new) {
                self.scaler.demand.started(now.duration_since(created));
            }
        }
    }
}

/// The replicas that answer, and those on their way. What is out of service does not count.
fn fleet(pods: &[&ObservedPod], width: u32, now: Timestamp) -> Fleet {
    let serving: Vec<&ObservedPod> = pods.iter().copied().filter(|pod| pod.cordoned.is_none()).collect();
    let (ready, starting): (Vec<_>, Vec<_>) =
        replicas(&serving).into_iter().partition(|replica| replica.is_complete(width));
    let made = |pods: &[&ObservedPod]| pods.iter().filter_map(|pod| pod.created).min().unwrap_or(now);
    Fleet {
        width: width as usize,
        ready: ready.len(),
        starting: starting.iter().map(|replica| now.duration_since(made(&replica.pods))).collect(),
    }
}
