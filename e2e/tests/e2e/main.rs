//! End-to-end tests on a real Kubernetes; `cargo xtask test` starts the cluster and runs them one after the other.

mod bad_input;
mod chat;
mod day;
mod experts;
mod failure;
mod front_door;
mod gpus;
mod keys;
mod lifecycle;
mod rollout;
mod scale;

use anyhow::Result;
use coterie_e2e::TALKING_MODEL;
use coterie_e2e::namespace::Namespace;
use serde_json::{Value, json};
use std::time::Duration;

/// Long enough for an inspect pod, a pull-free start and the load of 1.4 GB on two busy cores.
const READY: Duration = Duration::from_secs(180);
/// Long enough for the operator to see something and say so.
const NOTICE: Duration = Duration::from_secs(60);

/// The spec of the talking model in int8, which loads fast and fits anywhere.
fn talking_model(replicas: u32) -> Value {
    json!({
        "model": {
            "source": {"image": {"reference": TALKING_MODEL, "pullPolicy": "Never"}},
            "contextLength": 1024,
            "quantization": "Int8",
        },
        "replicas": replicas,
        "rollout": {"drainSeconds": 120},
    })
}

/// Deploys the talking model as `chat` and waits until it is Ready.
async fn deploy(namespace: &Namespace, replicas: u32) -> Result<String> {
    namespace.apply("chat", talking_model(replicas)).await?;
    namespace.condition("chat", "Ready", "True", READY).await?;
    namespace.endpoint("chat").await
}
