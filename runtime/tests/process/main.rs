//! The binary itself, with the real engine on a tiny random model: exit codes, termination messages, signals, and
//! that text and engine fit together.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test ends at the first surprise

#[path = "../http/client.rs"]
#[allow(dead_code)]
mod client;
mod clients;
mod commands;
mod folder;
#[path = "../http/replay/journalled.rs"]
mod journalled;
mod memory;
#[path = "../http/model.rs"]
#[allow(dead_code)]
mod model;
mod rank;
mod refusals;
mod replay;
mod serving;
mod templates;
#[path = "../../engine/tests/tiny_mixtral/mod.rs"]
mod tiny_mixtral;
