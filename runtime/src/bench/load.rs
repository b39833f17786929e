//! How fast a model folder comes into memory, beside what its files and the way to the GPU allow.

use crate::config::BenchGpuArgs;
use crate::termination::{failed, not_loaded};
use coterie_api::launch::Termination;
use coterie_engine::{Engine, EngineOptions, Event, Probe, Request, untrained};
use serde::Serialize;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Bytes that a thread reads at once when the file alone is measured.
const PIECE: u64 = 1 << 20;

/// What loading took.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bytes: usize,
    /// Until all bytes were in memory.
    load_s: f64,
    /// Until a token was generated.
    ready_s: f64,
    bytes_s: f64,
    /// What reading the weights' file alone comes to, which is in the page cache, and sending to the GPU alone.
    file_bytes_s: f64,
    upload_bytes_s: Option<f64>,
    /// Of the slower one of both.
    share_of_bound: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gb = |bytes: f64| bytes / 1e9;
        write!(
            f,
            "load: {:.2} GB in {:.2} s, {:.2} GB/s, {:.0} % of the slower of the file ({:.2} GB/s)",
            gb(self.bytes as f64),
            self.load_s,
            gb(self.bytes_s),
            100.0 * self.share_of_bound,
            gb(self.file_bytes_s)
        )?;
        match self.upload_bytes_s {
            Some(rate) => write!(f, " and the way to the GPU ({:.2} GB/s)", gb(rate))?,
            None => write!(f, " and nothing else")?,
        }
        write!(f, "; ready after {:.2} s", self.ready_s)
    }
}

/// Loads the model folder `dir` with `options`, and generates a token. Where no weights are in it, random ones are written.
pub(super) fn measure(
    dir: &Path,
    args: &BenchGpuArgs,
    options: &EngineOptions,
    probe: Option<&Probe>,
) -> Result<Report, Termination> {
    let weights = dir.join("model.safetensors");
    let threads = match args.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    if !weights.exists() && !dir.join("model.safetensors.index.json").exists() {
        write_config(dir, args)?;
        untrained::write(dir, threads).map_err(not_loaded)?;
    }
    let file_bytes_s = match weights.exists() {
        true => file_rate(&weights, threads)
            .map_err(|error| failed(format!("{} cannot be read: {error}", weights.display())))?,
        false => f64::INFINITY,
    };
    let upload_bytes_s = probe.map(|probe| probe.upload_rate().map_err(not_loaded)).transpose()?;
    let options = EngineOptions {
        untrained: false,
        max_running: 1,
        context_length: Some(args.context),
        cache_tokens: None,
        ..options.clone()
    };
    let started = Instant::now();
    let mut engine = Engine::load(dir, &options, &|_| {}).map_err(not_loaded)?;
    let first = engine.submit(Request::new(vec![0], 1));
    first.map_err(|why| failed(format!("the engine refused a prompt: {why}")))?;
    let (mut events, mut token) = (Vec::new(), false);
    while !engine.is_idle() {
        engine.step(&mut events);
        token |= events.drain(..).any(|event| matches!(event, Event::Token { .. }));
    }
    let ready_s = started.elapsed().as_secs_f64();
    if !token {
        return Err(failed(format!("the model in {} generated no token", dir.display())));
    }
    let loaded = engine.loaded();
    let bytes_s = loaded.rate();
    let bound = upload_bytes_s.unwrap_or(f64::INFINITY).min(file_bytes_s);
    Ok(Report {
        bytes: loaded.bytes,
        load_s: loaded.time.as_secs_f64(),
        ready_s,
        bytes_s,
        file_bytes_s,
        upload_bytes_s,
        share_of_bound: bytes_s / bound,
    })
}

/// The config.json of the model that is measured, with fewer layers.
fn write_config(dir: &Path, args: &BenchGpuArgs) -> Result<(), Termination> {
    let (from, to) = (args.config.join("config.json"), dir.join("config.json"));
    let wrong =
        |what: String| failed(format!("{} cannot be made of {}: {what}", to.display(), from.display()));
    let text = std::fs::read_to_string(&from).map_err(|error| wrong(error.to_string()))?;
    let mut config: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let layers = config["num_hidden_layers"]
        .as_u64()
        .ok_or_else(|| wrong("it has no num_hidden_layers".to_owned()))?;
    config["num_hidden_layers"] = layers.min(args.load_layers as u64).into();
    std::fs::create_dir_all(dir).map_err(|error| wrong(error.to_string()))?;
    std::fs::write(&to, config.to_string()).map_err(|error| wrong(error.to_string()))
}

/// Bytes a second of reading a whole file with so many threads, after it was read once.
fn file_rate(path: &Path, threads: usize) -> std::io::Result<f64> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let read = || {
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let work = || {
                let mut piece = vec![0; PIECE as usize];
                loop {
                    let at = next.fetch_add(PIECE, Ordering::Relaxed);
                    if at >= size {
                        return Ok(());
                    }
                    file.read_exact_at(&mut piece[..PIECE.min(size - at) as usize], at)?;
                }
            };
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            all.into_iter().try_for_each(|one| {
                one.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked")))
            })
        })
    };
    read()?;
    let began = Instant::now();
    read()?;
    Ok(size as f64 / began.elapsed().as_secs_f64())
}
