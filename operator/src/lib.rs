//! The operator's IO shell: watches, applies, reports.
//!
//! `controller` holds the reconcile, whose decisions are all made in `coterie-operator-core`; `observe` fills what they
//! are made from, `apply` and `report` write what came of them. Nothing else talks to the API server, but for `leader`
//! with its Lease.

mod apply;
mod backoff;
mod book;
mod controller;
pub mod dry_run;
mod error;
mod health;
mod http;
mod leader;
mod metrics;
mod observe;
pub mod options;
mod queue;
mod readable;
mod report;
mod watch;
mod written;

pub use error::Error;
pub use leader::{LEASE_DURATION, RENEW_DEADLINE, RENEW_PERIOD, RETRY_PERIOD};
pub use options::Options;

use coterie_api::name::LEASE;
use health::Health;
use kube::{Api, Client};
use leader::Election;
use metrics::Metrics;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// How long giving the Lease back may take.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// Runs the operator until `shutdown` is done: answers on the HTTP port, waits to lead, reconciles.
///
/// Dropping the future ends the operator at once, wherever it is, as a kill would.
pub async fn run(
    client: Client,
    options: Options,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    // Before the Lease is waited for: a wrong option is told at once.
    options.settings()?;
    let health = Arc::<Health>::default();
    let metrics = Arc::<Metrics>::default();
    let http = serve_http(options.http_port, health.clone(), metrics.clone()).await?;
    tokio::select! {
        ended = http => ended,
        ended = lead(client, &options, health, metrics, shutdown) => ended,
    }
}

/// Reconciles while this operator leads.
async fn lead(
    client: Client,
    options: &Options,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    if options.no_leader_election {
        return controller::run(client, options, health, metrics, shutdown).await;
    }
    let mut shutdown = pin!(shutdown);
    let leases = Api::namespaced(client.clone(), &options.lease_namespace);
    let mut election = Election::new(leases, LEASE, &options.identity, health.clone(), metrics.clone());
    tokio::select! {
        () = election.acquire() => {}
        () = &mut shutdown => return Ok(()),
    }
    let ended = tokio::select! {
        () = election.hold() => return Err(Error::LeadershipLost),
        ended = controller::run(client, options, health, metrics, shutdown) => ended,
    };
    if timeout(RELEASE_LIMIT, election.release()).await.is_err() {
        tracing::warn!("the Lease was not released in time; it ends by itself");
    }
    ended
}

/// Binds now, answers when polled; never ends by itself with port 0.
async fn serve_http(
    port: u16,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
) -> Result<impl Future<Output = Result<(), Error>>, Error> {
    let failed = move |source| Error::Listen { port, source };
    let listener = match port {
        0 => None,
        port => Some(bind(port).await.map_err(failed)?),
    };
    Ok(async move {
        match listener {
            None => std::future::pending().await,
            Some(listener) => http::serve(listener, health, metrics).await.map_err(failed),
        }
    })
}

/// Both IP versions where the machine has both.
async fn bind(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}
