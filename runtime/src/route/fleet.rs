//! Every lane of a router, by the newest table, and the questions for the loads of their ranks.

use super::lane::{Lane, LaneLimits, POLL, POLL_WHILE_WAITING};
use super::prefix::RankId;
use super::rank_client::RankClient;
use super::table::{Found, ModelKey, Name, Table, find};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// A model that can be asked for.
#[derive(Clone, Debug)]
pub struct Served {
    /// What its ranks call it.
    pub served_name: Arc<str>,
    /// When it was made, seconds since 1970, if that is known.
    pub made: Option<i64>,
    /// Its lane.
    pub lane: Arc<Lane>,
}

/// All of them.
#[derive(Debug)]
pub struct Fleet {
    models: RwLock<Arc<Vec<Served>>>,
    limits: LaneLimits,
    client: RankClient,
    /// How long a rank may take to tell its load.
    answer: Duration,
    known: watch::Sender<bool>,
}

impl Fleet {
    /// Without any model. A rank that does not tell its load within `answer` is silent.
    pub fn new(limits: LaneLimits, client: RankClient, answer: Duration) -> Fleet {
        Fleet { models: RwLock::default(), limits, client, answer, known: watch::Sender::new(false) }
    }

    /// Goes by `table` from now on.
    pub fn update(&self, table: &Table) {
        let before = self.models();
        let lane_of = |key: &ModelKey| before.iter().find(|served| served.lane.key == *key);
        let mut models = Vec::new();
        for model in &table.models {
            let lane = lane_of(&model.key)
                .map_or_else(|| Lane::new(model.key.clone(), self.limits), |served| served.lane.clone());
            lane.set_ttft(model.ttft);
            for (rank, address) in lane.set_ranks(&model.ranks) {
                tracing::info!(model = %model.key, rank = %address, "a rank was found");
                tokio::spawn(ask(self.client.clone(), self.answer, lane.clone(), rank, address));
            }
            models.push(Served { served_name: model.served_name.as_str().into(), made: model.made, lane });
        }
        warn_of_unused_names(&before, &models);
        let stays = |lane: &Arc<Lane>| models.iter().any(|served| Arc::ptr_eq(&served.lane, lane));
        for gone in before.iter().filter(|served| !stays(&served.lane)) {
            tracing::info!(model = %gone.lane.key, "a model is gone");
            gone.lane.set_ranks(&Default::default());
            gone.lane.close();
        }
        *self.models.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(models);
        self.known.send_replace(true);
    }

    /// Whether there has been a table.
    pub fn is_known(&self) -> bool {
        *self.known.borrow()
    }

    /// Every model.
    pub fn models(&self) -> Arc<Vec<Served>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The model that a client calls `asked`, or the names of those that it may mean.
    pub fn find(&self, asked: &str) -> Result<Served, Vec<String>> {
        match find(&self.models(), asked, Served::name) {
            Found::One(served) => Ok(served.clone()),
            Found::None => Err(Vec::new()),
            Found::Several(keys) => Err(keys.into_iter().map(ToString::to_string).collect()),
        }
    }
}

impl Served {
    fn name(&self) -> Name<'_> {
        Name { key: &self.lane.key, served: &self.served_name, made: self.made }
    }

    /// Whether a client gets it by its served name.
    pub fn has_its_name(&self, all: &[Served]) -> bool {
        let found = find(all, &self.served_name, Served::name);
        matches!(found, Found::One(one) if one.lane.key == self.lane.key)
    }
}

/// Tells once of each served name that is not used, and why.
fn warn_of_unused_names(before: &[Served], models: &[Served]) {
    let told = |model: &Served| {
        let same = |old: &&Served| old.lane.key == model.lane.key && old.served_name == model.served_name;
        before.iter().find(same).is_some_and(|old| !old.has_its_name(before))
    };
    for model in models.iter().filter(|model| !model.has_its_name(models) && !told(model)) {
        let (key, name) = (&model.lane.key, &*model.served_name);
        let is_key = |other: &Served| other.lane.key.to_string() == name;
        let namespace = name.split_once('/').map(|(namespace, _)| namespace);
        let why = if models.iter().any(is_key) {
            "it is the whole name of another ModelDeployment"
        } else if models.iter().any(|other| namespace == Some(&*other.lane.key.namespace)) {
            "it begins with a namespace, so it is kept for a ModelDeployment there"
        } else {
            "another model is served under it"
        };
        tracing::warn!(model = %key, name, why, "a served name is not used; the model is asked for by its whole name");
    }
}

/// Asks a rank for its load for as long as it is of its lane.
async fn ask(client: RankClient, within: Duration, lane: Arc<Lane>, rank: RankId, address: Arc<str>) {
    let mut ticks = interval(POLL_WHILE_WAITING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answered = true;
    let mut asked = None;
    loop {
        ticks.tick().await;
        let lately = asked.is_some_and(|asked: Instant| asked.elapsed() + POLL_WHILE_WAITING / 2 < POLL);
        if lately && !lane.has_line() {
            continue;
        }
        asked = Some(Instant::now());
        let answer = client.load(&address, within).await;
        if let Err(error) = &answer
            && answered
        {
            tracing::warn!(model = %lane.key, rank = %address, error, "a rank does not tell its load");
        }
        answered = answer.is_ok();
        if !lane.heard(rank, answer.map_err(|_| ())) {
            return;
        }
    }
}
