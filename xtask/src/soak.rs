//! `cargo xtask soak`: a rank among random clients, for as long as is asked for.

use std::time::Duration;

use anyhow::Result;

use crate::product;
use crate::step::seconds;

/// Runs the runtime's soak test for `time`; it prints its summary.
pub fn run(time: Duration) -> Result<()> {
    let mut cargo = product::cargo()?;
    cargo.args(["test", "--release", "--locked", "--workspace", "--test", "soak", "--", "--nocapture"]);
    cargo.env("COTERIE_SOAK_SECONDS", time.as_secs().to_string());
    product::shown(&format!("cargo test: the soak, {} of it", seconds(time)), &mut cargo)
}
