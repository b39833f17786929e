//! `coterie route`: the front door. One OpenAI endpoint for every ModelDeployment that it may see.
//!
//! A request goes `front` (understood) → `lane` (waits for its turn and a rank, `choice`) → `relay` (sent there, and to
//! another rank if that one is lost). Which models and ranks there are is a [`Table`], from a `cluster` or a
//! `ranks_file`. Only `cluster` knows Kubernetes.

mod asked;
mod choice;
pub mod cluster;
mod door;
mod fleet;
mod front;
mod headers;
mod keys;
mod lane;
mod members;
mod metrics;
mod prefix;
mod rank_client;
mod ranks_file;
mod record;
mod refusals;
mod relay;
mod reports;
mod table;

pub use door::{Door, Patience};
pub use fleet::Fleet;
pub use keys::{Allowance, KeyRule, Keys};
pub use lane::LaneLimits;
pub use table::{Model, ModelKey, Table};

use crate::config::RouteArgs;
use crate::machine::open_files;
use crate::serve::{Ended, INTERRUPTED, LAME_DUCK, until};
use crate::server::{Limits, accept};
use crate::signals::{Asked, listen};
use crate::termination::failed;
use coterie_api::launch::{Termination, TerminationReason};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Where the table comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// This file.
    File(PathBuf),
    /// The cluster that the environment names: these namespaces, or all if there are none.
    Cluster(Vec<String>),
}

/// How a router ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// For how long new requests are still taken once a drain begins.
    pub lame_duck: Duration,
    /// How long after its beginning a drain may last.
    pub drain: Duration,
}

/// Serves as the command line says, until told to end.
pub fn run(args: &RouteArgs) -> Result<ExitCode, Termination> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(format!("the network's threads could not be started: {error}")))?;
    let ended = runtime.block_on(async {
        let clients = bind((args.host, args.port).into())?;
        let scrapers = bind((args.host, args.metrics_port).into())?;
        let asked = listen()?;
        // Each client's connection may need one to a rank.
        let limits = Limits::with_connections(args.max_connections, open_files().map(|files| files / 2));
        let (keys, told) = read_keys(args.keys.as_deref())?;
        let door = Arc::new(Door::new(args.patience(), limits, args.waiting(), args.max_body_bytes, keys));
        let ending = Ending { lame_duck: LAME_DUCK, drain: Duration::from_secs(args.drain_seconds.into()) };
        tokio::select! {
            ended = serve(clients, scrapers, door.clone(), ending, asked) => ended,
            failed = follow(args.source(), &door.fleet) => Err(failed?),
            never = follow_keys(args.keys.as_deref(), &door.keys, told) => match never {},
        }
    });
    runtime.shutdown_background();
    Ok(match ended? {
        Ended::Drained => ExitCode::SUCCESS,
        Ended::Interrupted => ExitCode::from(INTERRUPTED),
    })
}

fn bind(address: SocketAddr) -> Result<TcpListener, Termination> {
    accept::bind(address).map_err(|error| {
        failed(format!("cannot listen on {address}: {error}; stop what uses the port, or choose another"))
    })
}

/// The keys in `folder`, if keys are asked for at all, and what was told of those that do not count.
fn read_keys(folder: Option<&Path>) -> Result<(Keys, Vec<String>), Termination> {
    let Some(folder) = folder else {
        tracing::warn!("no API keys are asked for: whoever reaches the port may ask");
        return Ok((Keys::open(), Vec::new()));
    };
    keys::begin(folder).map_err(rejected)
}

async fn follow_keys(folder: Option<&Path>, keys: &Keys, told: Vec<String>) -> Infallible {
    match folder {
        Some(folder) => keys::follow(folder, keys, told).await,
        None => std::future::pending().await,
    }
}

fn rejected(message: String) -> Termination {
    Termination { reason: TerminationReason::LaunchRejected, message }
}

/// Keeps the table as its source says; ends only with a reason why it cannot.
pub async fn follow(source: Source, fleet: &Fleet) -> Result<Termination, Termination> {
    match source {
        Source::File(path) => {
            let table = ranks_file::read(&path).map_err(rejected)?;
            fleet.update(&table);
            ranks_file::follow(path, table, fleet).await;
        }
        Source::Cluster(namespaces) => {
            let client = cluster::connect().await.map_err(|error| {
                failed(format!(
                    "no cluster can be asked: {error}; without one, name the ranks with --ranks-file"
                ))
            })?;
            cluster::follow(client, &namespaces, |table| fleet.update(&table)).await;
        }
    }
    Ok(failed("the watch of the models ended; this is a bug".to_owned()))
}

/// Serves clients and scrapers, until `asked` to end.
pub async fn serve(
    clients: TcpListener,
    scrapers: TcpListener,
    door: Arc<Door>,
    ending: Ending,
    mut asked: watch::Receiver<Asked>,
) -> Result<Ended, Termination> {
    if let (Ok(address), Ok(metrics)) = (clients.local_addr(), scrapers.local_addr()) {
        tracing::info!(%address, %metrics, "the front door is open");
    }
    let (stop, stopped) = watch::channel(false);
    let (stop_reports, reports_stopped) = watch::channel(false);
    let served = accept::accept(clients, front::router(door.clone()), door.limits, stopped);
    let mut served = tokio::spawn(served);
    let reports = accept::accept(scrapers, reports::router(door.clone()), Limits::default(), reports_stopped);
    let reports = tokio::spawn(reports);
    let mut now = asked.clone();
    let ended = tokio::select! {
        _ = until(&mut now, Asked::EndNow) => Ok(Ended::Interrupted),
        ended = async {
            until(&mut asked, Asked::Drain).await;
            drain(&door, ending, &stop, &mut served).await
        } => ended,
    };
    stop_reports.send_replace(true);
    served.abort();
    reports.abort();
    ended
}

/// Lets what runs, and what waits, come to its end.
async fn drain(
    door: &Door,
    ending: Ending,
    stop: &watch::Sender<bool>,
    served: &mut JoinHandle<()>,
) -> Result<Ended, Termination> {
    let seconds = ending.drain.as_secs();
    tracing::info!(seconds, "draining");
    door.begin_drain();
    let lame_duck = ending.lame_duck.min(ending.drain);
    sleep(lame_duck).await;
    stop.send_replace(true);
    if timeout(ending.drain - lame_duck, served).await.is_ok() {
        tracing::info!("drained");
        return Ok(Ended::Drained);
    }
    let loads = door.fleet.models().iter().map(|served| served.lane.load()).collect::<Vec<_>>();
    let left: u64 = loads.iter().map(|load| load.running + load.waiting).sum();
    Err(failed(format!(
        "{left} requests were not finished {seconds} s after the process was asked to end and were cut; allow more time with --drain-seconds"
    )))
}
