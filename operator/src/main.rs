//! `coterie-operator`: run | crds | plan | simulate.

use anyhow::{Result, anyhow, bail};
use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use coterie_operator::dry_run::{self, Input, Model};
use coterie_operator::simulate::{self, simulate};
use coterie_operator::{Options, chain, run};
use kube::Client;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Turns ModelDeployments into pods that serve them.
#[derive(Parser)]
#[command(name = "coterie-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch ModelDeployments and act on them until SIGTERM
    Run {
        #[command(flatten)]
        options: Box<Options>,
        /// How log lines look; default: text on a terminal, else json
        #[arg(long, env = "LOG_FORMAT")]
        log_format: Option<LogFormat>,
    },
    /// Print the CustomResourceDefinitions as YAML
    Crds,
    /// Print what the operator would make of a ModelDeployment, without a cluster. Exits 0 if it fits the nodes, 3 if
    /// it does not
    #[command(group = ArgGroup::new("model").required(true))]
    Plan {
        /// The ModelDeployment, YAML
        #[arg(short, long)]
        file: PathBuf,
        /// What `coterie inspect --output json` printed for its weights
        #[arg(long, group = "model")]
        inspection: Option<PathBuf>,
        /// The model's config.json, for an estimate without its weights
        #[arg(long, group = "model")]
        model_config: Option<PathBuf>,
        /// The nodes, as `kubectl get nodes -o yaml` prints them
        #[arg(long)]
        nodes: PathBuf,
        /// table: what ranks need and nodes have, for people; json: the same, for programs; yaml: the status and the
        /// objects that would be made
        #[arg(short, long, default_value = "table")]
        output: PlanOutput,
        /// Image of the pods that serve the model
        #[arg(long, env = "RUNTIME_IMAGE", default_value = "coterie")]
        runtime_image: String,
    },
    /// Replay a trace in virtual time under our scaler and others', and print what each attains for how many replica
    /// hours
    Simulate {
        #[command(flatten)]
        options: Box<simulate::Options>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum PlanOutput {
    Table,
    Json,
    Yaml,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

/// What is asked for does not fit the nodes; 1 is an error, 2 a wrong command line.
const DOES_NOT_FIT: u8 = 3;

fn main() -> ExitCode {
    match command() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("coterie-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Run { options, log_format } => {
            log(log_format);
            // The work is small and waits for the network: two threads keep the memory small too.
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(run_until_told(*options))?;
        }
        Command::Crds => print!("{}", dry_run::yaml(&coterie_operator_core::crd())?),
        Command::Plan { file, inspection, model_config, nodes, output, runtime_image } => {
            let model = match (inspection, model_config) {
                (Some(path), _) => Model::Inspection(Input::read(path)?),
                (None, Some(path)) => Model::Config(Input::read(path)?),
                (None, None) => bail!("give --inspection or --model-config"),
            };
            let planned = dry_run::plan(&Input::read(file)?, &model, &Input::read(nodes)?, runtime_image)?;
            let report = planned.report()?;
            match output {
                PlanOutput::Table => print!("{}", report.table()),
                PlanOutput::Json => println!("{}", serde_json::to_string_pretty(&report)?),
                PlanOutput::Yaml => print!("{}", planned.yaml()?),
            }
            if !report.fits {
                return Ok(ExitCode::from(DOES_NOT_FIT));
            }
        }
        Command::Simulate { options } => print!("{}", simulate(&options)?),
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_until_told(options: Options) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    options.settings()?;
    let client = Client::try_default().await.map_err(|error| {
        anyhow!(
            "no API server to talk to: run in a pod with a service account, or set KUBECONFIG ({})",
            chain(&error)
        )
    })?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(run(client, options, shutdown).await?)
}

fn log(format: Option<LogFormat>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    match format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json }) {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).init(),
        LogFormat::Text => lines.with_ansi(terminal).init(),
    }
}
