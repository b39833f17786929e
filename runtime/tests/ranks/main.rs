//! Several processes that share one model's experts: every token is compared with those of a single process, while
//! ranks are killed, stopped, started again, and experts move.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test ends at the first surprise

#[path = "../http/client.rs"]
#[allow(dead_code)]
mod client;
mod failures;
#[path = "../process/folder.rs"]
#[allow(dead_code)]
mod folder;
mod hostile;
mod matrix;
#[path = "../http/model.rs"]
#[allow(dead_code)]
mod model;
mod moves;
#[path = "../process/rank.rs"]
#[allow(dead_code)]
mod rank;
mod replica;
#[path = "../../engine/tests/tiny_mixtral/mod.rs"]
mod tiny_mixtral;
mod wire;
