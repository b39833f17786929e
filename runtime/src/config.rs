//! The command line.

mod gpu;
mod ranks;
mod route;

pub use gpu::BenchGpuArgs;
pub use ranks::RanksArgs;
pub use route::RouteArgs;

use crate::chat_template::SUBCOMMAND;
use crate::cubins;
use crate::server::Limits;
use crate::telemetry::check_endpoint;
use clap::{Args, Parser, Subcommand, ValueEnum};
use coterie_api::launch::Speculate;
use coterie_api::launch::{Device, Quantization, TERMINATION_LOG};
use coterie_api::name::HTTP_PORT;
use coterie_engine::EngineOptions;
use coterie_engine::engine::{DRAFTS, MIXED_PROMPT_TOKENS, STEP_TOKENS};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Serves Mixture-of-Experts models behind the OpenAI API.
#[derive(Debug, Parser)]
#[command(name = "coterie", version)]
pub struct Cli {
    /// Form of the log on stderr; text on a terminal and json elsewhere, unless given
    #[arg(long, global = true, value_enum)]
    pub log_format: Option<LogFormat>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load a model folder and serve it over HTTP until SIGTERM
    ///
    /// It listens at once; /ready answers 200 once the model has generated a token of its own. SIGTERM or one SIGINT
    /// drains: /ready turns 503, new requests are still taken for 3 seconds, then running ones may finish until
    /// --drain-seconds are over.
    ///
    /// Exit code 0: every request was answered. 1: the machine failed, or requests still ran at the drain's deadline
    /// and were cut. 2: the model folder or the command line was refused. 130: a second SIGINT ended it at once.
    Serve(Box<ServeArgs>),
    /// Be the front door: one endpoint for every model, in front of the ranks that serve them, until SIGTERM
    ///
    /// It watches the cluster's ModelDeployments, or goes by --ranks-file. Requests wait here while no rank has room.
    /// SIGTERM or one SIGINT drains as it does for serve, with the same exit codes.
    Route(Box<RouteArgs>),
    /// Measure how fast this machine runs a model; prints one JSON object
    Bench(Box<BenchArgs>),
    /// Say what a model folder holds and what serving it takes
    ///
    /// Where of the weights only model.safetensors.index.json is there, the model is described from that and
    /// config.json, and tensors that are missing are named; a pod is not started with such a folder.
    ///
    /// The digest is SHA-256 over the files that lie directly in the folder (hidden ones left out), sorted by name:
    /// each one's name, size and content; of a file over 32 MiB the first 4 MiB and 64 samples of 64 KiB. It tells
    /// other weights, an edited tokenizer and a cut-off file apart; it does not find a few flipped bytes.
    Inspect(InspectArgs),
    /// The process in which a chat template is rendered; only coterie itself starts it
    #[command(name = SUBCOMMAND, hide = true)]
    RenderTemplate,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `coterie serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Folder of the model: config.json, tokenizer.json, *.safetensors
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Name that clients put into `model` [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    pub served_name: Option<String>,
    /// Longest request, prompt and answer, in tokens [default: the model's own]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
    /// How the weights are held: none (as in the checkpoint), int8, or on GPUs int4
    #[arg(long, default_value = Quantization::None.flag())]
    pub quantization: Quantization,
    /// What to compute on: cpu or gpu
    #[arg(long, default_value = Device::Cpu.flag(), value_parser = device)]
    pub device: Device,
    /// Folder of the kernels' machine code for GPUs, which has a folder for each architecture
    /// [default: share/coterie/cubins beside the folder of this program]
    #[arg(long, value_name = "DIR", env = "COTERIE_CUBINS")]
    pub cubins: Option<PathBuf>,
    /// On a GPU, start every kernel of a step by itself: no step is recorded and repeated as a CUDA graph
    #[arg(long)]
    pub no_cuda_graphs: bool,
    /// Address to listen on
    #[arg(long, default_value = "0.0.0.0")]
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = HTTP_PORT)]
    pub port: u16,
    /// After SIGTERM, running requests may take this many seconds to finish
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub drain_seconds: u32,
    /// Threads to compute with; 0 takes all cores
    #[arg(long, default_value_t = 0, value_parser = threads)]
    pub threads: usize,
    /// Requests in one batch at most
    #[arg(long, value_name = "REQUESTS", default_value_t = 16, value_parser = at_least_one)]
    pub max_running: usize,
    /// Requests that may wait for a place in the batch; more get status 429
    #[arg(long, value_name = "REQUESTS", default_value_t = 256, value_parser = at_least_one)]
    pub max_waiting: usize,
    /// Prompt tokens of waiting requests at most; more get status 429
    #[arg(long, value_name = "TOKENS", default_value_t = 1 << 18, value_parser = at_least_one)]
    pub max_waiting_tokens: usize,
    /// Rows of one step at most, prompts' and answers' tokens together, unless more requests than that are running
    #[arg(long, value_name = "TOKENS", default_value_t = STEP_TOKENS, value_parser = at_least_one)]
    pub step_tokens: usize,
    /// Prompt tokens of a step at most while others' answers are generated: fewer make these flow more evenly, and
    /// prompts slower
    #[arg(long, value_name = "TOKENS", default_value_t = MIXED_PROMPT_TOKENS, value_parser = at_least_one)]
    pub mixed_prompt_tokens: usize,
    /// How long a token may take after the one before it: prompt tokens of a step are made so many, up to
    /// --step-tokens, that steps take about as long [default: as many as --mixed-prompt-tokens says, always]
    #[arg(long, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u32).range(1..=600_000))]
    pub itl_milliseconds: Option<u32>,
    /// Tokens that the KV cache holds, all requests together; at least --context
    /// [default: --context, and up to 2048 for others]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub cache_tokens: Option<usize>,
    /// Connections at once; more get status 503, but probes and scrapes are still answered
    #[arg(long, value_name = "CONNECTIONS", default_value_t = Limits::default().connections, value_parser = at_least_one)]
    pub max_connections: usize,
    /// Compute every prompt from its first token
    #[arg(long)]
    pub no_prefix_cache: bool,
    /// Where guesses at a request's next tokens come from, which are computed together with its last one: lookup (what
    /// followed the same tokens before), mtp (the checkpoint's draft module) or none. They change no token
    #[arg(long, value_name = "SOURCE", default_value = Speculate::Lookup.flag())]
    pub speculate: Speculate,
    /// Tokens that one request guesses at most; it guesses fewer, or none, where they seldom come true
    #[arg(long, value_name = "TOKENS", default_value_t = DRAFTS.tokens, value_parser = at_least_one)]
    pub draft_tokens: usize,
    /// URL of an OpenTelemetry collector to which a span for each request is posted, as OTLP over http://
    /// [default: what OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT say; without any, no spans]
    #[arg(long, value_name = "URL", value_parser = collector)]
    pub otlp_traces_endpoint: Option<String>,
    /// Its part of a replica of several ranks.
    #[command(flatten)]
    pub ranks: RanksArgs,
    /// File for the termination message; written only if it is there
    #[arg(long, value_name = "FILE", default_value = TERMINATION_LOG)]
    pub termination_log: PathBuf,
}

/// `coterie bench`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BenchArgs {
    /// Measure something else.
    #[command(subcommand)]
    pub other: Option<OtherBench>,
    /// Folder of the model
    #[arg(long, value_name = "DIR", required = true)]
    pub model: Option<PathBuf>,
    /// How the weights are held: none, int8, or on GPUs int4
    #[arg(long, default_value = Quantization::None.flag())]
    pub quantization: Quantization,
    /// What to compute on: cpu or gpu
    #[arg(long, default_value = Device::Cpu.flag(), value_parser = device)]
    pub device: Device,
    /// Folder of the kernels' machine code for GPUs, which has a folder for each architecture
    /// [default: share/coterie/cubins beside the folder of this program]
    #[arg(long, value_name = "DIR", env = "COTERIE_CUBINS")]
    pub cubins: Option<PathBuf>,
    /// On a GPU, start every kernel of a step by itself: no step is recorded and repeated as a CUDA graph
    #[arg(long)]
    pub no_cuda_graphs: bool,
    /// Measure instead which tiles are fastest for the products of this model on this GPU, and keep the table beside the kernels'
    /// machine code, where serve reads it. It changes no token. Of the folder, config.json is enough
    #[arg(long)]
    pub tune: bool,
    /// Tokens in each prompt
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = at_least_one)]
    pub prompt_tokens: usize,
    /// Tokens to generate for each request
    #[arg(long, value_name = "TOKENS", default_value_t = 64, value_parser = at_least_one)]
    pub generate: usize,
    /// Requests at once
    #[arg(long, value_name = "REQUESTS", default_value_t = 1, value_parser = at_least_one)]
    pub batch: usize,
    /// Rows of one step at most, as in serve
    #[arg(long, value_name = "TOKENS", default_value_t = STEP_TOKENS, value_parser = at_least_one)]
    pub step_tokens: usize,
    /// Tokens after which a prompt repeats itself; random tokens never do
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub repeat_after: Option<usize>,
    /// Where guesses come from, as in serve; with none, figures are those of the model alone
    #[arg(long, value_name = "SOURCE", default_value = Speculate::None.flag())]
    pub speculate: Speculate,
    /// Tokens that one request guesses at most
    #[arg(long, value_name = "TOKENS", default_value_t = DRAFTS.tokens, value_parser = at_least_one)]
    pub draft_tokens: usize,
    /// Runs; the median is reported
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    pub runs: usize,
    /// Threads to compute with; 0 takes all cores
    #[arg(long, default_value_t = 0, value_parser = threads)]
    pub threads: usize,
    /// File for the termination message; written only if it is there
    #[arg(long, value_name = "FILE", default_value = TERMINATION_LOG)]
    pub termination_log: PathBuf,
}

/// What `coterie bench` measures beside a model folder.
#[derive(Clone, Debug, Subcommand)]
pub enum OtherBench {
    /// Measure a GPU with a model of random weights, of which only config.json is needed
    ///
    /// Prints tokens a second of decoding at several batches and of a prefill, each beside what the bandwidth of the GPU's
    /// memory allows: the weights that a step touches (experts taken to be chosen evenly) and the caches, read once.
    Gpu(BenchGpuArgs),
}

/// `coterie inspect`.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// Folder of the model
    #[arg(value_name = "DIR")]
    pub model: PathBuf,
    /// Form of the answer on stdout
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// File for the answer as JSON, or for the reason of a failure; written only if it is there
    #[arg(long, value_name = "FILE", default_value = TERMINATION_LOG)]
    pub termination_log: PathBuf,
}

/// Form of an answer on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

impl ServeArgs {
    /// Name that clients put into `model`.
    pub fn served_name(&self) -> String {
        self.served_name.clone().unwrap_or_else(|| folder_name(&self.model))
    }

    /// What the engine is loaded with.
    pub fn engine_options(&self) -> EngineOptions {
        EngineOptions {
            quantization: self.quantization,
            device: self.device,
            cubins: cubins::folder(self.cubins.as_deref()),
            cuda_graphs: !self.no_cuda_graphs,
            context_length: self.context.map(|tokens| tokens as usize),
            threads: self.threads,
            max_running: self.max_running,
            max_waiting: self.max_waiting,
            max_waiting_tokens: self.max_waiting_tokens,
            step_tokens: self.step_tokens,
            mixed_prompt_tokens: self.mixed_prompt_tokens,
            itl: self.itl_milliseconds.map(|time| Duration::from_millis(time.into())),
            cache_tokens: self.cache_tokens,
            prefix_cache: !self.no_prefix_cache,
            speculate: self.speculate,
            draft_tokens: self.draft_tokens,
            untrained: false,
        }
    }
}

/// The last part of the path, also of `.` and of `models/m/`.
fn folder_name(dir: &Path) -> String {
    let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    whole.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn device(text: &str) -> Result<Device, String> {
    let known = [Device::Cpu, Device::Gpu];
    let found = known.into_iter().find(|device| device.flag().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("unknown device {text:?}; known: cpu, gpu"))
}

/// An empty one is none, as an empty variable is.
fn collector(url: &str) -> Result<String, String> {
    if !url.is_empty() {
        check_endpoint(url)?;
    }
    Ok(url.to_owned())
}

/// More than any machine has cores for.
const MOST_THREADS: usize = 1024;

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > MOST_THREADS => Err(format!("must be at most {MOST_THREADS}")),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coterie_api::launch::{Activations, ExpertsLaunch, RankLaunch};

    fn serve(args: &[String]) -> ServeArgs {
        let words = std::iter::once("coterie".to_owned()).chain(args.iter().cloned());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Serve(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    fn launches() -> impl Iterator<Item = RankLaunch> {
        let experts = |exchange_tls: Option<&str>, activations| ExpertsLaunch {
            rank: 7,
            expert_map: "/experts/map.json".into(),
            peers: "/experts/peers.json".into(),
            exchange_port: 9000,
            exchange_tls: exchange_tls.map(Into::into),
            activations,
            adopt_limit: exchange_tls.map(|_| 12),
        };
        let several = [experts(None, Activations::Bf16), experts(Some("/tls"), Activations::Int8)];
        let experts = [None].into_iter().chain(several.map(Some));
        let quantizations = Quantization::BEST_FIRST;
        experts.flat_map(move |experts| {
            [None, Some(512)].into_iter().flat_map(move |context_length| {
                let experts = experts.clone();
                quantizations.into_iter().zip([Device::Cpu, Device::Gpu, Device::Gpu]).map(
                    move |(quantization, device)| RankLaunch {
                        model_dir: "/model".into(),
                        served_name: "smol-moe".into(),
                        context_length,
                        quantization,
                        speculate: Some(Speculate::Mtp),
                        itl_milliseconds: context_length.map(|_| 50),
                        device,
                        port: 8081,
                        drain_seconds: 60,
                        experts: experts.clone(),
                    },
                )
            })
        })
    }

    #[test]
    fn what_the_operator_writes_is_what_serve_reads() {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        for launch in launches() {
            let args = serve(&launch.args());
            let ranks = args.ranks.clone();
            let experts = ranks.rank.map(|rank| ExpertsLaunch {
                rank,
                expert_map: ranks.expert_map.map(text).unwrap(),
                peers: ranks.peers.map(text).unwrap(),
                exchange_port: ranks.exchange_port,
                exchange_tls: ranks.exchange_tls.map(text),
                activations: ranks.activations,
                adopt_limit: ranks.adopt_limit.map(|limit| limit.try_into().unwrap()),
            });
            let read = RankLaunch {
                model_dir: text(args.model.clone()),
                served_name: args.served_name(),
                context_length: args.context,
                quantization: args.quantization,
                speculate: Some(args.speculate),
                itl_milliseconds: args.itl_milliseconds,
                device: args.device,
                port: args.port,
                drain_seconds: args.drain_seconds,
                experts,
            };
            assert_eq!(read, launch);
        }
    }

    #[test]
    fn a_rank_of_several_needs_to_know_the_others() {
        for words in [
            &["--rank", "0"][..],
            &["--rank", "0", "--expert-map", "m"],
            &["--rank", "0", "--peers", "p"],
            &["--expert-map", "m", "--peers", "p"],
            &["--exchange-port", "1"],
            &["--activations", "int8"],
            &["--exchange-tls", "d"],
            &["--peer-wait", "5"],
        ] {
            let words = ["coterie", "serve", "--model", "m"].iter().chain(words);
            let error = Cli::try_parse_from(words).unwrap_err().to_string();
            assert!(error.contains("required"), "{error}");
        }
    }

    #[test]
    fn a_folder_is_enough_to_serve_it() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("tiny-moe");
        std::fs::create_dir(&model).unwrap();
        let args = serve(&["serve".into(), "--model".into(), format!("{}/", model.display())]);
        assert_eq!(args.served_name(), "tiny-moe");
        assert_eq!((args.port, args.quantization, args.device), (8080, Quantization::None, Device::Cpu));
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        for (flag, value, said) in [
            ("--context", "0", "--context"),
            ("--quantization", "int3", "known: none, int8, int4"),
            ("--device", "tpu", "known: cpu, gpu"),
            ("--speculate", "dice", "known: none, lookup, mtp"),
            ("--draft-tokens", "0", "at least 1"),
            ("--max-running", "0", "at least 1"),
            ("--max-connections", "0", "at least 1"),
            ("--otlp-traces-endpoint", "junk", "only http://"),
            ("--otlp-traces-endpoint", "https://c:4318", "only http://"),
            ("--otlp-traces-endpoint", "http://", "--otlp-traces-endpoint"),
            ("--activations", "fp4", "known: bf16, int8"),
        ] {
            let words = ["coterie", "serve", "--model", "m", flag, value];
            let error = Cli::try_parse_from(words).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
