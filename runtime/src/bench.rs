//! `coterie bench`: how fast this machine runs a model. The prompt is random tokens, once or again and again; nothing stops
//! an answer early.

mod gpu;
mod load;

use crate::config::{BenchArgs, OtherBench};
use crate::cubins;
use crate::machine;
use crate::model_dir;
use crate::termination::{failed, not_loaded};
use coterie_api::launch::Termination;
use coterie_engine::{Engine, EngineOptions, Event, Request};
use serde::Serialize;
use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    /// Prompt tokens a second, all requests together; median.
    prefill_tok_s: f64,
    /// Generated tokens a second after the first, all requests together; median. Absent where only one is generated.
    decode_tok_s: Option<f64>,
    load_s: f64,
    peak_rss_bytes: Option<u64>,
    quantization: &'static str,
    device: &'static str,
    prompt_tokens: usize,
    generate: usize,
    batch: usize,
    step_tokens: usize,
    speculate: &'static str,
    /// In all runs together.
    draft_tokens: u64,
    /// Those of them that came true.
    accepted_tokens: u64,
    /// Tokens that a request with a draft generates in a step, mean. Absent where nothing was drafted.
    tokens_a_draft: Option<f64>,
    runs: usize,
    threads: usize,
    cpu_features: Vec<&'static str>,
    architecture: String,
    parameters: u64,
    active_parameters: u64,
    digest: String,
    version: &'static str,
}

/// One run.
struct Timing {
    /// Seconds until every request had its first token.
    prefill_s: f64,
    /// Seconds from then to the last token of all.
    decode_s: f64,
    /// Tokens generated in `decode_s`.
    decoded: usize,
}

impl Timing {
    fn decode_tok_s(&self) -> Option<f64> {
        (self.decoded > 0).then(|| self.decoded as f64 / self.decode_s)
    }
}

/// Measures, and prints one JSON object.
pub fn run(args: &BenchArgs) -> Result<ExitCode, Termination> {
    if let Some(OtherBench::Gpu(args)) = &args.other {
        return gpu::run(args);
    }
    let Some(model) = &args.model else {
        return Err(failed("bench needs a model folder; give --model DIR".to_owned()));
    };
    model_dir::must_be_there(model)?;
    if args.tune {
        return tune(args, model);
    }
    let inspection = coterie_engine::inspect(model).map_err(not_loaded)?;
    let options = EngineOptions {
        quantization: args.quantization,
        device: args.device,
        cubins: cubins::folder(args.cubins.as_deref()),
        cuda_graphs: !args.no_cuda_graphs,
        context_length: Some(args.prompt_tokens + args.generate),
        threads: args.threads,
        max_running: args.batch,
        max_waiting: args.batch,
        max_waiting_tokens: usize::MAX,
        step_tokens: args.step_tokens,
        // Prefill and decode are measured apart as far as they can be.
        mixed_prompt_tokens: args.step_tokens,
        itl: None,
        cache_tokens: Some((args.prompt_tokens + args.generate).saturating_mul(args.batch)),
        // The runs are alike, and each is to be computed.
        prefix_cache: false,
        speculate: args.speculate,
        draft_tokens: args.draft_tokens,
        untrained: false,
    };
    let started = Instant::now();
    let mut engine = Engine::load(model, &options, &|_| {}).map_err(not_loaded)?;
    let load_s = started.elapsed().as_secs_f64();

    let mut timings = Vec::new();
    for number in 1..=args.runs {
        let timing = measure(&mut engine, args)?;
        tracing::info!(number, prefill_s = timing.prefill_s, decode_s = timing.decode_s, "run");
        timings.push(timing);
    }
    let prompt_tokens = (args.prompt_tokens * args.batch) as f64;
    let counts = engine.load_now().scheduled;
    let decoded: Vec<f64> = timings.iter().filter_map(Timing::decode_tok_s).collect();
    let report = Report {
        prefill_tok_s: prompt_tokens / median(timings.iter().map(|timing| timing.prefill_s)),
        decode_tok_s: (!decoded.is_empty()).then(|| median(decoded.into_iter())),
        load_s,
        peak_rss_bytes: machine::peak_memory(),
        quantization: args.quantization.flag(),
        device: args.device.flag(),
        prompt_tokens: args.prompt_tokens,
        generate: args.generate,
        batch: args.batch,
        step_tokens: args.step_tokens,
        speculate: args.speculate.flag(),
        draft_tokens: counts.draft_tokens,
        accepted_tokens: counts.accepted_tokens,
        tokens_a_draft: (counts.drafts > 0)
            .then(|| 1.0 + counts.accepted_tokens as f64 / counts.drafts as f64),
        runs: args.runs,
        threads: threads(args),
        cpu_features: machine::cpu_features(),
        architecture: inspection.architecture,
        parameters: inspection.parameters,
        active_parameters: inspection.active_parameters,
        digest: inspection.digest,
        version: env!("CARGO_PKG_VERSION"),
    };
    let json = serde_json::to_string(&report)
        .map_err(|error| failed(format!("the report could not be written: {error}")))?;
    println!("{json}");
    Ok(ExitCode::SUCCESS)
}

/// Measures tiles, and prints where their table is.
fn tune(args: &BenchArgs, model: &Path) -> Result<ExitCode, Termination> {
    let cubins = cubins::folder(args.cubins.as_deref());
    let tuned = coterie_engine::tiles::tune(model, &cubins, &mut |choice| {
        tracing::info!(kind = ?choice.kind, rows = choice.rows, tiles = choice.tiles.name(), "fastest");
    });
    let tuned = tuned.map_err(not_loaded)?;
    let report = serde_json::json!({
        "tiles": tuned.path,
        "gpu": tuned.gpu,
        "architecture": tuned.architecture,
        "products": tuned.products,
        "choices": tuned.choices,
        "version": env!("CARGO_PKG_VERSION"),
    });
    println!("{report}");
    Ok(ExitCode::SUCCESS)
}

/// One batch from its prompts to its last token.
fn measure(engine: &mut Engine, args: &BenchArgs) -> Result<Timing, Termination> {
    let vocabulary = engine.vocabulary() as u64;
    for number in 0..args.batch as u64 {
        let period: Vec<u32> =
            random_tokens(number, vocabulary).take(args.repeat_after.unwrap_or(args.prompt_tokens)).collect();
        let prompt = period.into_iter().cycle().take(args.prompt_tokens).collect();
        engine
            .submit(Request::new(prompt, args.generate))
            .map_err(|why| failed(format!("the engine refused a prompt: {why}")))?;
    }
    let started = Instant::now();
    let (mut events, mut begun, mut generated) = (Vec::new(), HashSet::new(), 0);
    // A long batch is prefilled in several steps, and requests that are through decode meanwhile: those tokens count
    // neither way.
    let mut prefilled = None;
    while !engine.is_idle() {
        engine.step(&mut events);
        for event in events.drain(..) {
            match event {
                Event::Started { .. } => {}
                Event::Failed { why, .. } => return Err(failed(format!("the model failed: {why}"))),
                Event::Token { id, .. } => {
                    generated += 1;
                    begun.insert(id);
                }
                Event::Prompt { .. } => {}
            }
        }
        if begun.len() == args.batch && prefilled.is_none() {
            prefilled = Some((started.elapsed().as_secs_f64(), generated));
        }
    }
    let whole_s = started.elapsed().as_secs_f64();
    let expected = args.batch * args.generate;
    match prefilled {
        Some((prefill_s, before)) if generated == expected => {
            Ok(Timing { prefill_s, decode_s: whole_s - prefill_s, decoded: generated - before })
        }
        _ => Err(failed(format!("the engine generated {generated} tokens where {expected} were asked for"))),
    }
}

/// The same tokens for the same `seed` (a 64-bit linear congruential sequence, high bits).
fn random_tokens(seed: u64, vocabulary: u64) -> impl Iterator<Item = u32> {
    let step = |state: &u64| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    };
    let states = std::iter::successors(Some(seed + 1), step).skip(1);
    states.map(move |state| ((state >> 33) % vocabulary.max(1)) as u32)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

fn threads(args: &BenchArgs) -> usize {
    if args.threads > 0 { args.threads } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }

    #[test]
    fn prompts_are_random_but_the_same_every_time() {
        let first: Vec<u32> = random_tokens(0, 1000).take(100).collect();
        assert_eq!(first, random_tokens(0, 1000).take(100).collect::<Vec<_>>());
        assert_ne!(first, random_tokens(1, 1000).take(100).collect::<Vec<_>>());
        assert!(first.iter().all(|token| *token < 1000));
        assert!(first.iter().collect::<std::collections::BTreeSet<_>>().len() > 80);
    }
}
