//! `coterie bench gpu`: how near a GPU's memory the engine decodes, on a model of random weights that nobody has to download.

use super::load;
use super::median;
use crate::config::{BenchGpuArgs, Output};
use crate::cubins;
use crate::model_dir;
use crate::termination::{failed, not_loaded};
use coterie_api::launch::{Device, Termination};
use coterie_engine::traffic::Step;
use coterie_engine::untrained::Outline;
use coterie_engine::{Engine, EngineOptions, Event, Probe, Request};
use serde::Serialize;
use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Instant;

/// Times that a prompt is prefilled; the median is reported.
const PREFILLS: usize = 3;

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    architecture: String,
    parameters: u64,
    active_parameters: u64,
    quantization: &'static str,
    device: &'static str,
    /// What the GPU's kernels were compiled for.
    gpu_architecture: Option<&'static str>,
    /// Whether decoding repeated recorded steps: not if that was not wanted, or refused (the log says why).
    cuda_graphs: bool,
    context: usize,
    step_tokens: usize,
    weight_bytes: u64,
    /// Memory of the GPU that loading took: weights, caches, what kernels need.
    gpu_bytes: Option<usize>,
    /// Bytes that the device's memory moves in a second, and whether that was measured here. Absent on CPUs unless given.
    bandwidth: Option<f64>,
    bandwidth_measured: bool,
    prefill: Figure,
    decode: Vec<Figure>,
    load: Option<load::Report>,
    version: &'static str,
}

/// Steps of one kind.
#[derive(Debug, Serialize)]
struct Figure {
    /// Requests.
    batch: usize,
    /// Tokens before those that are computed, mean.
    context: usize,
    tok_s: f64,
    /// Of a decode the median step; of a prefill the whole prompt, median.
    seconds: f64,
    /// What has to be read at least: weights, and what earlier tokens left.
    weight_bytes: f64,
    cache_bytes: f64,
    /// Tokens a second if that took as long as `bandwidth` says; absent without it.
    roofline_tok_s: Option<f64>,
    share_of_roofline: Option<f64>,
}

impl Figure {
    /// Of `tokens` tokens in `seconds`, for which steps read `[weights, cache]` bytes.
    fn new(
        [batch, context, tokens]: [usize; 3],
        seconds: f64,
        [weight_bytes, cache_bytes]: [f64; 2],
        bandwidth: Option<f64>,
    ) -> Figure {
        let tok_s = tokens as f64 / seconds;
        let roofline_tok_s = bandwidth.map(|rate| tokens as f64 * rate / (weight_bytes + cache_bytes));
        let share_of_roofline = roofline_tok_s.map(|roofline| tok_s / roofline);
        Figure {
            batch,
            context,
            tok_s,
            seconds,
            weight_bytes,
            cache_bytes,
            roofline_tok_s,
            share_of_roofline,
        }
    }

    /// A line for people.
    fn told(&self, what: &str) -> String {
        let share = self
            .share_of_roofline
            .map_or(String::new(), |share| format!(", {:.0} % of what memory allows", 100.0 * share));
        format!(
            "{what}, batch {}, behind {} tokens: {:.1} tok/s, {:.3} ms{share}",
            self.batch,
            self.context,
            self.tok_s,
            1e3 * self.seconds
        )
    }
}

/// Measures, and prints what came of it.
pub fn run(args: &BenchGpuArgs) -> Result<ExitCode, Termination> {
    model_dir::must_be_there(&args.config)?;
    let outline = Outline::read(&args.config).map_err(not_loaded)?;
    let cubins = cubins::folder(args.cubins.as_deref());
    let probe = match args.device {
        Device::Gpu => Some(Probe::open(&cubins).map_err(not_loaded)?),
        Device::Cpu => None,
    };
    let measured = match (args.bandwidth, &probe) {
        (None, Some(probe)) => Some(probe.memory_rate().map_err(not_loaded)?),
        _ => None,
    };
    let bandwidth = args.bandwidth.map(|rate| rate * 1e9).or(measured);
    let free = || probe.as_ref().map(|probe| probe.free().map_err(not_loaded)).transpose();
    let before = free()?;
    // Requests that came first decode while the others' prompts are computed.
    let most = args.batch.iter().copied().max().unwrap_or(1);
    let ahead = (most * args.context).div_ceil(args.step_tokens) + 1;
    let longest = args.context + args.steps + 2 * ahead;
    let options = EngineOptions {
        quantization: args.quantization,
        device: args.device,
        cubins,
        cuda_graphs: !args.no_cuda_graphs,
        context_length: Some(longest),
        threads: args.threads,
        max_running: most,
        max_waiting: most,
        max_waiting_tokens: usize::MAX,
        step_tokens: args.step_tokens,
        mixed_prompt_tokens: args.step_tokens,
        cache_tokens: Some((longest + 16).saturating_mul(most)),
        prefix_cache: false,
        speculate: coterie_api::launch::Speculate::None,
        untrained: true,
        ..EngineOptions::default()
    };
    let mut engine = Engine::load(&args.config, &options, &|_| {}).map_err(not_loaded)?;
    let bytes = |rows: usize, sequences: usize, context: usize| {
        let step = Step { rows, sequences, context };
        outline.bytes_of(args.quantization, args.device, step)
    };

    let mut prefills = Vec::new();
    for number in 0..=PREFILLS as u64 {
        let steps = steps_of(&mut engine, args, number, 1, 1)?;
        prefills.push(steps.iter().map(|step| step.seconds).sum::<f64>());
    }
    // The first of them takes memory that those behind it find.
    let seconds = median(prefills.into_iter().skip(1));
    let chunks = (0..args.context).step_by(args.step_tokens).map(|first| {
        let moved = bytes(args.step_tokens.min(args.context - first), 1, first);
        [moved.weights, moved.cache]
    });
    let moved = chunks.fold([0.0; 2], |sum, chunk| [sum[0] + chunk[0], sum[1] + chunk[1]]);
    let prefill = Figure::new([1, 0, args.context], seconds, moved, bandwidth);
    // Whoever is cut off has what was measured until then.
    eprintln!("{}", prefill.told("prefill"));

    let mut decode = Vec::new();
    for (number, &batch) in args.batch.iter().enumerate() {
        let ahead = (batch * args.context).div_ceil(args.step_tokens) + 1;
        let steps = steps_of(&mut engine, args, 100 + 1000 * number as u64, batch, args.steps + ahead)?;
        let full: Vec<&TimedStep> = steps.iter().filter(|step| step.all_decode).collect();
        if full.is_empty() {
            return Err(failed(format!("{batch} requests never decoded at once; raise --steps")));
        }
        let seconds = median(full.iter().map(|step| step.seconds));
        let context = full.iter().map(|step| step.context).sum::<usize>() / full.len();
        let moved = bytes(batch, batch, context);
        let figure = Figure::new([batch, context, batch], seconds, [moved.weights, moved.cache], bandwidth);
        eprintln!("{}", figure.told("decode"));
        decode.push(figure);
    }
    let after = free()?;
    let cuda_graphs = engine.repeats_steps();
    drop(engine);
    let load = args.load.as_ref().map(|dir| load::measure(dir, args, &options, probe.as_ref())).transpose();
    // What was measured before it is told all the same.
    let (load, not_loaded) = match load {
        Ok(load) => (load, None),
        Err(why) => (None, Some(why)),
    };
    let inspection = outline.inspection;
    let report = Report {
        architecture: inspection.architecture,
        parameters: inspection.parameters,
        active_parameters: inspection.active_parameters,
        quantization: args.quantization.flag(),
        device: args.device.flag(),
        gpu_architecture: probe.as_ref().map(Probe::architecture),
        cuda_graphs,
        context: args.context,
        step_tokens: args.step_tokens,
        weight_bytes: inspection.weight_bytes.of(args.quantization),
        gpu_bytes: before.zip(after).map(|(before, after)| before.saturating_sub(after)),
        bandwidth,
        bandwidth_measured: measured.is_some(),
        prefill,
        decode,
        load,
        version: env!("CARGO_PKG_VERSION"),
    };
    match args.output {
        Output::Json => {
            let json = serde_json::to_string(&report);
            println!(
                "{}",
                json.map_err(|error| failed(format!("the report could not be written: {error}")))?
            );
        }
        Output::Text => print!("{}", text(&report)),
    }
    not_loaded.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// A step, and what was in it.
struct TimedStep {
    seconds: f64,
    /// Did every request decode in it, and nothing else happen?
    all_decode: bool,
    /// Tokens before a request's row, mean.
    context: usize,
}

/// Every step from `batch` prompts to their last token, of which each request has `generate`.
fn steps_of(
    engine: &mut Engine,
    args: &BenchGpuArgs,
    seed: u64,
    batch: usize,
    generate: usize,
) -> Result<Vec<TimedStep>, Termination> {
    let vocabulary = engine.vocabulary() as u64;
    for number in 0..batch as u64 {
        let prompt = super::random_tokens(seed + number, vocabulary).take(args.context).collect();
        engine
            .submit(Request::new(prompt, generate))
            .map_err(|why| failed(format!("the engine refused a prompt: {why}")))?;
    }
    let (mut steps, mut events, mut begun, mut generated) = (Vec::new(), Vec::new(), HashSet::new(), 0);
    while !engine.is_idle() {
        let (had_begun, before) = (begun.len(), generated);
        let started = Instant::now();
        engine.step(&mut events);
        let seconds = started.elapsed().as_secs_f64();
        for event in events.drain(..) {
            match event {
                Event::Failed { why, .. } => return Err(failed(format!("the model failed: {why}"))),
                Event::Token { id, .. } => {
                    generated += 1;
                    begun.insert(id);
                }
                Event::Started { .. } | Event::Prompt { .. } => {}
            }
        }
        steps.push(TimedStep {
            seconds,
            all_decode: had_begun == batch && generated - before == batch,
            context: args.context + before / batch,
        });
    }
    match generated == batch * generate {
        true => Ok(steps),
        false => Err(failed(format!("the engine generated {generated} tokens of {}", batch * generate))),
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let gb = |bytes: f64| bytes / 1e9;
    let mut line = |text: String| out += &(text + "\n");
    line(format!(
        "{} of {:.1} B parameters, weights as {} ({:.2} GB), on {}",
        report.architecture,
        report.parameters as f64 / 1e9,
        report.quantization,
        gb(report.weight_bytes as f64),
        report.gpu_architecture.unwrap_or(report.device)
    ));
    if let Some(bytes) = report.gpu_bytes {
        line(format!("{:.2} GB of the GPU's memory", gb(bytes as f64)));
    }
    if let Some(bandwidth) = report.bandwidth {
        let how = if report.bandwidth_measured { "measured" } else { "given" };
        line(format!("memory {:.0} GB/s ({how})", gb(bandwidth)));
    }
    if report.gpu_architecture.is_some() {
        let how = if report.cuda_graphs { "as CUDA graphs" } else { "kernel by kernel, without CUDA graphs" };
        line(format!("steps that only decode ran {how}"));
    }
    line(report.prefill.told("prefill"));
    for figure in &report.decode {
        line(figure.told("decode"));
    }
    if let Some(load) = &report.load {
        line(load.to_string());
    }
    out
}
