//! `cargo xtask soak`: a rank among random clients, for as long as is asked for.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{cmd, product};

/// Runs the soak test of the runtime for `time` and shows its summary.
pub fn run(time: Duration) -> Result<()> {
    let mut cargo = product::cargo()?;
    cargo.args(["test", "--release", "--locked", "--workspace", "--test", "soak", "--", "--nocapture"]);
    cargo.env("COTERIE_SOAK_SECONDS", time.as_secs().to_string());
    let status = cargo.status()?;
    ensure!(status.success(), "`{}` failed: {status}; what it printed above says why", cmd::line(&cargo));
    Ok(())
}
