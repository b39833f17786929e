//! Autoscaling on a trace, in virtual time: our scaler beside others', over the same replicas.
//!
//! A trace is read or drawn ([`trace`], [`synthetic`]), replayed against a model of replicas behind a front door ([`fleet`],
//! [`replica`]) once for each policy ([`scalers`]), and what became of its requests ([`outcome`]) is compared ([`compare`]).

mod compare;
mod dice;
mod fleet;
mod options;
mod outcome;
mod plot;
mod replica;
mod scalers;
mod synthetic;
mod table;
mod trace;

pub use options::Options;

use anyhow::{Context, Result};
use options::Output;

/// Replays, and gives what is to be printed.
pub fn simulate(options: &Options) -> Result<String> {
    // What is wrong on the command line is told before a long trace is read.
    let (slo, setting) = (options.slo()?, options.setting()?);
    let trace = options.requests()?;
    let rows = compare::compare(&trace, options)?;
    if let Some(path) = &options.plot {
        let drawing = plot::svg(&trace, &rows, setting.cold_start);
        std::fs::write(path, drawing).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(match options.output {
        Output::Json => serde_json::to_string_pretty(&rows)? + "\n",
        Output::Table => table::table(&trace, &setting, slo, &rows),
    })
}
