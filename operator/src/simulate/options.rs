//! What `coterie-operator simulate` can be told.

use super::fleet::Setting;
use super::outcome::Slo;
use super::replica::Speed;
use super::synthetic::{self, Shape};
use super::trace::Trace;
use anyhow::{Context, Result, bail, ensure};
use clap::{ArgGroup, Args, value_parser};
use coterie_api::deployment::scaling::{QUEUE_TARGET_LIMIT, WAIT_SECONDS_LIMIT};
use coterie_operator_core::validate::Scaling;
use jiff::SignedDuration;
use std::path::PathBuf;

/// Options of `simulate`. Without more, replicas are about as fast as a 7 B model on one large GPU.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("requests").required(true).args(["trace", "synthetic"])))]
pub struct Options {
    /// The requests: CSV with the first line arrival_s,prompt_tokens,output_tokens, sorted by arrival
    #[arg(long)]
    pub trace: Option<PathBuf>,
    /// Random requests in place of a trace, with the published statistics of Azure's traces of 2023
    #[arg(long)]
    pub synthetic: Option<Shape>,
    /// What the random requests are drawn from: the same seed gives the same ones
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Seconds of random requests
    #[arg(long, default_value_t = 3600.0)]
    pub seconds: f64,
    /// So many times the published rate of requests
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    /// By how much conversation's rate wanders: deviation of its logarithm
    #[arg(long, default_value_t = synthetic::CONVERSATION_WANDER)]
    pub wander: f64,
    /// Write the requests to this file, as CSV
    #[arg(long)]
    pub write_trace: Option<PathBuf>,
    /// Seconds from the making of a replica to Ready
    #[arg(long, default_value_t = 60.0)]
    pub cold_start: f64,
    /// Prompt tokens a second of one replica that does nothing else
    #[arg(long, default_value_t = 8000.0)]
    pub prefill: f64,
    /// Milliseconds of a step of the engine, whatever is in it: a of ITL(n) = a + b n
    #[arg(long, default_value_t = 10.0)]
    pub step: f64,
    /// Milliseconds more for each running request: b of ITL(n) = a + b n
    #[arg(long, default_value_t = 0.3)]
    pub token: f64,
    /// Requests in one batch
    #[arg(long, default_value_t = 64)]
    pub slots: u32,
    /// Prompt tokens in one step at most; fewer beside running requests, where the step would take longer than --itl
    #[arg(long, default_value_t = 256)]
    pub chunk: u32,
    /// SLO: seconds to the first token
    #[arg(long, default_value_t = 2.0)]
    pub ttft: f64,
    /// SLO: mean milliseconds from one token of a request to the next
    #[arg(long, default_value_t = 50.0)]
    pub itl: f64,
    /// Percent of the requests that a fleet must serve within the SLO to be good enough
    #[arg(long, default_value_t = 99.5)]
    pub goal: f64,
    /// Fewest replicas
    #[arg(long, default_value_t = 1)]
    pub min: u32,
    /// Most replicas
    #[arg(long, default_value_t = 200)]
    pub max: u32,
    /// Replicas at the beginning, ready; default: as many as the smallest static fleet that is good enough
    #[arg(long)]
    pub start: Option<u32>,
    /// Our scaler's idleSeconds
    #[arg(long, default_value_t = 600, value_parser = value_parser!(u32).range(1..=WAIT_SECONDS_LIMIT.into()))]
    pub idle: u32,
    /// Our scaler's quietSeconds; default: four times --cold-start, 60 to 300
    #[arg(long, value_parser = value_parser!(u32).range(0..=WAIT_SECONDS_LIMIT.into()))]
    pub quiet: Option<u32>,
    /// Our scaler's queueDepth.target; default: Auto
    #[arg(long, value_parser = value_parser!(u32).range(1..=QUEUE_TARGET_LIMIT.into()))]
    pub queue_target: Option<u32>,
    /// Leave out the search for the others' best targets
    #[arg(long)]
    pub no_sweep: bool,
    /// table: for people; json: one object a policy
    #[arg(short, long, default_value = "table")]
    pub output: Output,
    /// Draw replicas and requests over time into this SVG file
    #[arg(long)]
    pub plot: Option<PathBuf>,
}

/// How the comparison is printed.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Output {
    /// Columns.
    Table,
    /// An array.
    Json,
}

impl Options {
    /// The requests that are replayed.
    pub fn requests(&self) -> Result<Trace> {
        let trace = match (&self.trace, self.synthetic) {
            (Some(path), _) => Trace::read(path)?,
            (None, Some(shape)) => {
                positive("seconds", self.seconds, 7.0 * 86_400.0)?;
                positive("scale", self.scale, 1000.0)?;
                positive("wander", self.wander, 2.0)?;
                synthetic::trace(shape, self.seed, self.seconds, self.scale, self.wander)?
            }
            (None, None) => bail!("give --trace or --synthetic"),
        };
        if let Some(path) = &self.write_trace {
            std::fs::write(path, trace.csv()).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(trace)
    }

    /// All but the number of replicas at the beginning.
    pub fn setting(&self) -> Result<Setting> {
        ensure!(self.slots > 0 && self.slots <= 4096, "--slots is {}: give 1 to 4096", self.slots);
        ensure!(self.chunk > 0 && self.chunk <= 1 << 20, "--chunk is {}: give 1 to 1048576", self.chunk);
        ensure!(self.max > 0 && self.max <= 1000, "--max is {}: give 1 to 1000", self.max);
        ensure!(
            self.min <= self.max,
            "--min is {} and --max {}: lower the one or raise the other",
            self.min,
            self.max
        );
        if let Some(start) = self.start.filter(|start| !(self.min..=self.max).contains(start)) {
            bail!("--start is {start}: give a number from --min to --max, {} to {}", self.min, self.max);
        }
        ensure!(
            self.cold_start >= 0.0 && self.cold_start <= 86_400.0,
            "--cold-start is {}: give seconds, 0 to 86400",
            self.cold_start
        );
        let slo = self.slo()?;
        Ok(Setting {
            speed: Speed {
                step: positive("step", self.step, 60_000.0)? / 1000.0,
                token: positive("token", self.token, 60_000.0)? / 1000.0,
                prompt: 1.0 / positive("prefill", self.prefill, 1e9)?,
                slots: self.slots as usize,
                chunk: f64::from(self.chunk),
                itl: slo.itl,
            },
            cold_start: self.cold_start,
            ttft: slo.ttft,
            start: self.start.unwrap_or(0) as usize,
            least: self.min as usize,
            most: self.max as usize,
        })
    }

    /// What requests may expect.
    pub fn slo(&self) -> Result<Slo> {
        Ok(Slo {
            ttft: positive("ttft", self.ttft, 600.0)?,
            itl: positive("itl", self.itl, 600_000.0)? / 1000.0,
        })
    }

    /// Share of the requests that must be served so.
    pub fn goal(&self) -> Result<f64> {
        Ok(positive("goal", self.goal, 100.0)? / 100.0)
    }

    /// Our scaler's policy.
    pub fn policy(&self) -> Result<Scaling> {
        let slo = self.slo()?;
        Ok(Scaling {
            least: self.min as usize,
            most: self.max as usize,
            queue_target: self.queue_target,
            ttft: SignedDuration::from_secs_f64(slo.ttft),
            itl: SignedDuration::from_secs_f64(slo.itl),
            idle: SignedDuration::from_secs(self.idle.into()),
            quiet: self.quiet.map(|quiet| SignedDuration::from_secs(quiet.into())),
        })
    }
}

fn positive(flag: &str, value: f64, most: f64) -> Result<f64> {
    ensure!(value > 0.0 && value <= most, "--{flag} is {value}: give a number above 0 and at most {most}");
    Ok(value)
}
