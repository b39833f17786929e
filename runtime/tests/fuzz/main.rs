//! Whatever reads what comes from outside, given damaged inputs: a model folder's files and clients' requests may be
//! refused, but must not panic, hang, or take memory out of proportion.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test ends at the first surprise

mod answers;
mod chat_template;
mod exchange;
#[path = "../../../tests/fuzz/mod.rs"]
mod fuzz;
#[path = "../http/model.rs"]
#[allow(dead_code)]
mod model;
mod model_folder;
mod requests;
#[path = "../http/script.rs"]
#[allow(dead_code)]
mod script;
mod tokenizer;
