//! The chart, installed anew or with other values.

use crate::operator;
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::process::{Command, Stdio};

/// The folder of the chart.
pub fn chart() -> Result<String> {
    std::env::var("COTERIE_CHART").context("COTERIE_CHART is not set: run `cargo xtask test`")
}

/// Runs helm in the operator's namespace; its standard output.
pub fn run(args: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new("helm")
        .args(args)
        .args(["-n", operator::NAMESPACE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start helm")?;
    child.stdin.take().context("helm has no input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "helm {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
