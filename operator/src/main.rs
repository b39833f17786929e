//! `coterie-operator`: run | crds | plan.

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand, ValueEnum};
use coterie_operator::dry_run::{self, Input};
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
    /// Print what the operator would make of a ModelDeployment, without a cluster
    Plan {
        /// The ModelDeployment, YAML
        #[arg(short, long)]
        file: PathBuf,
        /// What `coterie inspect --output json` printed for its weights
        #[arg(long)]
        inspection: PathBuf,
        /// The nodes, as `kubectl get nodes -o yaml` prints them
        #[arg(long)]
        nodes: PathBuf,
        /// Image of the pods that serve the model
        #[arg(long, env = "RUNTIME_IMAGE", default_value = "coterie")]
        runtime_image: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

fn main() -> ExitCode {
    match command() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coterie-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Result<()> {
    match Cli::parse().command {
        Command::Run { options, log_format } => {
            log(log_format);
            // The work is small and waits for the network: two threads keep the memory small too.
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(run_until_told(*options))
        }
        Command::Crds => {
            print!("{}", dry_run::yaml(&coterie_operator_core::crd())?);
            Ok(())
        }
        Command::Plan { file, inspection, nodes, runtime_image } => {
            let [file, inspection, nodes] =
                [Input::read(file)?, Input::read(inspection)?, Input::read(nodes)?];
            let text = dry_run::plan(&file, &inspection, &nodes, runtime_image)?;
            print!("{text}");
            Ok(())
        }
    }
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
