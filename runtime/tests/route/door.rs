//! Starts a router inside the test.

use crate::client::{Reply, exchange};
use crate::fake_rank::{FakeRank, Happened};
use coterie_api::front_door::{FrontDoorLoad, ModelLoad};
use coterie_api::launch::Termination;
use coterie_runtime::route::{Door, Ending, Keys, LaneLimits, Model, ModelKey, Patience, Table, serve};
use coterie_runtime::serve::Ended;
use coterie_runtime::server::{Limits, accept};
use coterie_runtime::signals::Asked;
use serde_json::{Value, json};
use std::borrow::Borrow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub const PATIENCE: Patience =
    Patience { hold: Duration::from_secs(20), quiet: Duration::from_secs(10), lost: Duration::from_secs(1) };
pub const WAITING: LaneLimits = LaneLimits { requests: 100_000, bytes: 1 << 30 };
const ENDING: Ending = Ending { lame_duck: Duration::from_millis(100), drain: Duration::from_secs(20) };

pub struct FrontDoor {
    pub address: SocketAddr,
    pub reports: SocketAddr,
    pub door: Arc<Door>,
    asked: watch::Sender<Asked>,
    ended: JoinHandle<Result<Ended, Termination>>,
}

pub fn model(namespace: &str, name: &str, served: &str, ranks: &[&FakeRank]) -> Model {
    let key = ModelKey { namespace: namespace.into(), name: name.into() };
    Model {
        key,
        served_name: served.into(),
        made: None,
        ttft: None,
        ranks: ranks.iter().map(|rank| rank.address.to_string()).collect(),
    }
}

/// Some ranks of the model `m`, and a router before them.
pub async fn with_ranks(number: usize) -> (FrontDoor, Vec<FakeRank>) {
    let happened = Happened::default();
    let mut ranks = Vec::new();
    for _ in 0..number {
        ranks.push(FakeRank::start(&happened).await);
    }
    let door = FrontDoor::start(PATIENCE, WAITING).await;
    door.serve(&ranks.iter().collect::<Vec<_>>());
    (door, ranks)
}

impl FrontDoor {
    pub async fn start(patience: Patience, waiting: LaneLimits) -> FrontDoor {
        let limits = Limits { connections: 10_000, ..Limits::default() };
        FrontDoor::of(Door::new(patience, limits, waiting, 256 << 20, Keys::open())).await
    }

    pub async fn of(door: Door) -> FrontDoor {
        let bind = || accept::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let (clients, scrapers) = (bind(), bind());
        let (address, reports) = (clients.local_addr().unwrap(), scrapers.local_addr().unwrap());
        let (asked, receiver) = watch::channel(Asked::Serve);
        let door = Arc::new(door);
        let ended = tokio::spawn(serve(clients, scrapers, door.clone(), ENDING, receiver));
        FrontDoor { address, reports, door, asked, ended }
    }

    /// `m` has these ranks now.
    pub fn serve(&self, ranks: &[&FakeRank]) {
        self.update(vec![model("chat", "m", "m", ranks)]);
    }

    pub fn update(&self, models: Vec<Model>) {
        self.door.fleet.update(&Table { models });
    }

    pub async fn get(&self, path: &str) -> Reply {
        exchange(self.address, "GET", path, "").await
    }

    pub async fn complete(&self, body: impl Borrow<Value>) -> Reply {
        exchange(self.address, "POST", "/v1/completions", &named(body.borrow()).to_string()).await
    }

    /// What the operator sees of the first model.
    pub async fn load(&self) -> ModelLoad {
        let load: FrontDoorLoad =
            serde_json::from_value(exchange(self.reports, "GET", "/load", "").await.json()).unwrap();
        load.models[0].clone()
    }

    pub async fn until(&self, what: &str, condition: impl Fn(&ModelLoad) -> bool) {
        let mut load = self.load().await;
        for _ in 0..1000 {
            if condition(&load) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
            load = self.load().await;
        }
        panic!("never {what}: {load:?}");
    }

    pub fn ask(&self, asked: Asked) {
        self.asked.send_replace(asked);
    }

    pub async fn ended(self) -> Result<Ended, Termination> {
        tokio::time::timeout(Duration::from_secs(20), self.ended).await.expect("never ended").unwrap()
    }

    /// As if it were killed.
    pub fn kill(&self) {
        self.ended.abort();
    }
}

pub fn named(body: &Value) -> Value {
    let mut body = body.clone();
    if body.get("model").is_none() {
        body["model"] = "m".into();
    }
    body
}

pub fn streamed(prompt: &str) -> Value {
    json!({"prompt": prompt, "stream": true, "max_tokens": 6})
}
