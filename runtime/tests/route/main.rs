//! The front door before ranks that do to it whatever ranks can do: a real router on loopback ports, and ranks that
//! follow a script, byte by byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test ends at the first surprise

mod answers;
mod broken_streams;
mod callers;
#[path = "../http/client.rs"]
#[allow(dead_code)] // shared with the tests of a rank
mod client;
mod door;
mod fake_rank;
mod holding;
mod process;
