//! Starts the process inside the test.

use crate::client::{Reply, exchange};
use crate::model;
use crate::script::{Script, Seen};
use coterie_api::launch::Termination;
use coterie_runtime::chat_template::Rendering;
use coterie_runtime::exchange::Window;
use coterie_runtime::serve::{Ended, ServeOptions, serve};
use coterie_runtime::server::{Limits, accept};
use coterie_runtime::signals::Asked;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub const MODEL: &str = "scripted";

/// How long a drain may last.
const DRAIN: Duration = Duration::from_secs(30);

pub struct Server {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Seen>>,
    asked: watch::Sender<Asked>,
    ended: JoinHandle<Result<Ended, Termination>>,
    _folder: TempDir,
}

impl Server {
    pub async fn start() -> Server {
        Server::start_with(DRAIN, || Ok(())).await.ready().await
    }

    async fn ready(self) -> Server {
        self.until_ready().await;
        self
    }

    /// Serves within other limits.
    pub async fn start_within(limits: Limits) -> Server {
        Server::start_as(model::folder(), DRAIN, limits, None, || Ok(())).await.ready().await
    }

    /// The model has this chat template.
    pub async fn start_with_template(template: &str) -> Server {
        let folder = model::folder_with(template);
        Server::start_as(folder, DRAIN, Limits::default(), None, || Ok(())).await.ready().await
    }

    /// Spans are posted to `collector`.
    pub async fn start_traced(collector: &str) -> Server {
        let collector = Some(collector.to_owned());
        Server::start_as(model::folder(), DRAIN, Limits::default(), collector, || Ok(())).await.ready().await
    }

    /// `load` runs on the engine's thread before the script is there.
    pub async fn start_with(
        drain: Duration,
        load: impl FnOnce() -> Result<(), Termination> + Send + 'static,
    ) -> Server {
        Server::start_as(model::folder(), drain, Limits::default(), None, load).await
    }

    async fn start_as(
        folder: TempDir,
        drain: Duration,
        limits: Limits,
        collector: Option<String>,
        load: impl FnOnce() -> Result<(), Termination> + Send + 'static,
    ) -> Server {
        let listener = accept::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let options = ServeOptions {
            model_dir: folder.path().to_owned(),
            rendering: Rendering::Aside(env!("CARGO_BIN_EXE_coterie").into()),
            served_name: MODEL.to_owned(),
            collector,
            lame_duck: Duration::from_millis(300),
            drain,
            limits,
            experts: Window::default(),
        };
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (asked, receiver) = watch::channel(Asked::Serve);
        let script = Script::new(seen.clone());
        let load = move |progress: &dyn Fn(f32)| {
            progress(0.5);
            load().map(|()| script)
        };
        let ended = tokio::spawn(serve(listener, options, load, receiver));
        Server { address, seen, asked, ended, _folder: folder }
    }

    pub async fn until_ready(&self) {
        for _ in 0..500 {
            if self.get("/ready").await.status == 200 {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("never ready");
    }

    /// The last prompt that the engine was given, without its structure tokens.
    pub fn last_prompt(&self) -> String {
        let seen = self.seen.lock().unwrap();
        let prompt = &seen.requests.last().unwrap().prompt;
        let bytes = prompt.iter().filter(|token| **token < 256).map(|token| *token as u8).collect();
        String::from_utf8(bytes).unwrap()
    }

    pub async fn get(&self, path: &str) -> Reply {
        exchange(self.address, "GET", path, "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        exchange(self.address, "POST", path, &body.to_string()).await
    }

    pub async fn chat(&self, body: Value) -> Reply {
        self.post("/v1/chat/completions", &named(body)).await
    }

    pub async fn complete(&self, body: Value) -> Reply {
        self.post("/v1/completions", &named(body)).await
    }

    /// The value of a line in /metrics.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.body;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or("0").parse().unwrap()
    }

    /// Waits until a metric has this value: a client may have its last token before the step that made it is counted.
    pub async fn counts(&self, name: &str, expected: f64) {
        let mut value = self.metric(name).await;
        for _ in 0..1000 {
            if value == expected {
                return;
            }
            sleep(Duration::from_millis(5)).await;
            value = self.metric(name).await;
        }
        panic!("{name} is {value}, not {expected}");
    }

    /// Waits until these metrics are the same: a step may be counted between two looks.
    pub async fn agree(&self, names: &[&str]) {
        let mut values = Vec::new();
        for _ in 0..1000 {
            values.clear();
            for name in names {
                values.push(self.metric(name).await);
            }
            if values.iter().all(|value| *value == values[0] && *value > 0.0) {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("{names:?} are {values:?}");
    }

    pub fn ask(&self, asked: Asked) {
        self.asked.send_replace(asked);
    }

    pub fn has_ended(&self) -> bool {
        self.ended.is_finished()
    }

    pub async fn ended(self) -> Result<Ended, Termination> {
        tokio::time::timeout(Duration::from_secs(20), self.ended).await.expect("never ended").unwrap()
    }
}

/// `body` for the model that is served, unless it names another.
pub fn named(mut body: Value) -> Value {
    if body.get("model").is_none() {
        body["model"] = MODEL.into();
    }
    body
}

/// A chat body of one user message, with more fields.
pub fn user(text: &str, more: Value) -> Value {
    let mut body = more;
    body["messages"] = serde_json::json!([{"role": "user", "content": text}]);
    body
}

/// What `usage` is when nothing was in the cache.
pub fn usage(prompt: usize, completion: usize) -> Value {
    serde_json::json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
    })
}

/// Waits for `condition`.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}
