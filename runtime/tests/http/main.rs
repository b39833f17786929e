//! The whole process but its weights: a real server on a loopback port, a real tokenizer and chat template, and an
//! engine that follows a script.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test ends at the first surprise

mod attacks;
mod chat;
mod choices;
mod client;
mod completions;
mod forms;
mod lifecycle;
mod load;
mod metrics;
mod model;
mod parameters;
mod reasoning;
mod rejections;
mod replay;
mod script;
mod server;
mod streams;
mod tool_formats;
mod tools;
mod traces;
