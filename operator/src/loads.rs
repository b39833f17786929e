//! Asks every rank how busy it is, and every router what waits there.
//!
//! Kept is the last answer of each. A ModelDeployment is looked at again as long as something waits for it, and when a rank
//! of it that is out of service is empty.

use crate::ask::ask;
use crate::observe::{OwnPod, Router};
use crate::queue::Queue;
use coterie_api::front_door::FrontDoorLoad;
use coterie_api::name::HTTP_PORT;
use coterie_api::rank_load::RankLoad;
use coterie_operator_core::observed::{ObservedPod, Occupancy, Phase, Role};
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Between two questions to a router, and to a rank at which something waits or that is out of service.
const SOON: Duration = Duration::from_secs(1);
/// Every other rank is asked each so many times.
const OFTEN: u32 = 2;
/// Questions under way.
const TOGETHER: usize = 64;
/// What a rank said last counts for so long.
const FRESH: SignedDuration = SignedDuration::from_secs(6);

/// What ranks and routers told last, by the uids of their pods.
#[derive(Default)]
pub struct Loads {
    ranks: Mutex<HashMap<String, (Timestamp, RankLoad)>>,
    /// `None` of one that has not answered yet. One that leaves counts for as long as it answers.
    routers: Mutex<HashMap<String, Option<(Timestamp, FrontDoorLoad)>>>,
}

impl Loads {
    /// Asks `routers` and the ranks among `pods` again and again, until dropped.
    pub async fn follow(
        &self,
        pods: impl Fn() -> Vec<(String, Arc<OwnPod>)>,
        routers: impl Fn() -> Vec<Arc<Router>>,
        queue: &Queue,
    ) {
        let mut ticks = interval(SOON);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for tick in (0..OFTEN).cycle() {
            ticks.tick().await;
            let ranks = pods().into_iter().filter(|(_, own)| answers(&own.pod)).collect();
            futures::join!(self.ask_ranks(ranks, tick == 0, queue), self.ask_routers(routers(), queue));
        }
    }

    async fn ask_ranks(&self, ranks: Vec<(String, Arc<OwnPod>)>, all: bool, queue: &Queue) {
        let uids: HashSet<&str> = ranks.iter().map(|(_, own)| own.pod.uid.as_str()).collect();
        let busy: HashSet<String> = {
            let mut kept = lock(&self.ranks);
            kept.retain(|uid, _| uids.contains(uid.as_str()));
            let waits = kept.iter().filter(|(_, (_, load))| load.waiting > 0);
            waits.map(|(uid, _)| uid.clone()).collect()
        };
        let due = |own: &OwnPod| all || own.pod.cordoned.is_some() || busy.contains(&own.pod.uid);
        let asked = ranks.into_iter().filter(|(_, own)| due(own)).map(|(namespace, own)| async move {
            let address = own.pod.address.clone().unwrap_or_default();
            let answer = ask::<RankLoad>(&address, HTTP_PORT, "/load").await;
            (namespace, own, answer)
        });
        let mut answers = stream::iter(asked).buffer_unordered(TOGETHER);
        while let Some((namespace, own, answer)) = answers.next().await {
            match answer {
                Ok(load) => {
                    let is_emptied = own.pod.cordoned.is_some() && load.running == 0 && load.waiting == 0;
                    if is_emptied || load.waiting > 0 {
                        queue.one(&namespace, &own.deployment);
                    }
                    lock(&self.ranks).insert(own.pod.uid.clone(), (Timestamp::now(), load));
                }
                Err(error) => tracing::debug!(pod = own.pod.name, %error, "a rank does not tell its load"),
            }
        }
    }

    async fn ask_routers(&self, routers: Vec<Arc<Router>>, queue: &Queue) {
        {
            let mut kept = lock(&self.routers);
            kept.retain(|uid, _| routers.iter().any(|router| router.uid == *uid));
            for router in routers.iter().filter(|router| !router.leaving) {
                kept.entry(router.uid.clone()).or_default();
            }
        }
        let asked = routers.into_iter().map(|router| async move {
            let answer = ask::<FrontDoorLoad>(&router.address, router.port, "/load").await;
            (router, answer)
        });
        let mut answers = stream::iter(asked).buffer_unordered(TOGETHER);
        while let Some((router, answer)) = answers.next().await {
            match answer {
                Ok(load) => {
                    for model in load.models.iter().filter(|model| model.waiting > 0) {
                        queue.one(&model.namespace, &model.name);
                    }
                    lock(&self.routers).insert(router.uid.clone(), Some((Timestamp::now(), load)));
                }
                Err(error) => {
                    tracing::debug!(pod = router.name, %error, "a router does not tell what waits there");
                    if router.leaving {
                        lock(&self.routers).remove(&router.uid);
                    }
                }
            }
        }
    }

    /// How busy these pods were, by uid, as far as they told in the last seconds.
    pub fn of(&self, pods: &[ObservedPod], now: Timestamp) -> BTreeMap<String, Occupancy> {
        let kept = lock(&self.ranks);
        let told = pods.iter().filter_map(|pod| Some((pod.uid.clone(), kept.get(&pod.uid)?)));
        let fresh = told.filter(|(_, (at, _))| now.duration_since(*at) <= FRESH);
        fresh.map(|(uid, (at, load))| (uid, Occupancy::of(load, *at))).collect()
    }

    /// What a rank told last, and when.
    pub fn rank(&self, uid: &str) -> Option<(Timestamp, RankLoad)> {
        lock(&self.ranks).get(uid).cloned()
    }

    /// What each router told last, and when; `None` of one that has told nothing yet.
    pub fn routers(&self) -> BTreeMap<String, Option<(Timestamp, FrontDoorLoad)>> {
        lock(&self.routers).iter().map(|(uid, told)| (uid.clone(), told.clone())).collect()
    }
}

fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answers(pod: &ObservedPod) -> bool {
    pod.role == Some(Role::Rank) && pod.phase == Phase::Running && pod.address.is_some()
}
