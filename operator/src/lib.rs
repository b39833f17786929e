//! The operator's IO shell: watches, applies, reports.
//!
//! `controller` holds the reconcile, whose decisions are all made in `coterie-operator-core`; `observe` fills what they
//! are made from, `apply` and `report` write what came of them. Nothing else talks to the API server, but for `leader`
//! with its Lease, `certificates` with its Secrets and `definition`, which looks at the CRD. `reports` asks ranks.

mod apply;
mod ask;
mod backoff;
mod book;
mod certificates;
mod columns;
mod controller;
mod definition;
pub mod dry_run;
mod error;
mod health;
mod http;
mod leader;
mod loads;
mod metrics;
mod observe;
pub mod options;
mod queue;
mod readable;
mod report;
mod reports;
mod scaling;
pub mod simulate;
mod watch;
mod written;

pub use error::{Error, chain};
pub use leader::{LEASE_DURATION, RENEW_DEADLINE, RENEW_PERIOD, RETRY_PERIOD};
pub use options::Options;

use definition::Definition;
use health::Health;
use kube::Client;
use leader::Election;
use metrics::Metrics;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long giving the Lease back may take.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// One running operator: what its parts share.
#[derive(Clone)]
struct Operator {
    client: Client,
    options: Arc<Options>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    definition: Arc<Definition>,
}

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
    let operator = Operator {
        client,
        options: Arc::new(options),
        health: Arc::default(),
        metrics: Arc::default(),
        definition: Arc::default(),
    };
    let http = operator.serve_http()?;
    tokio::select! {
        ended = http => ended,
        () = operator.definition.follow(operator.client.clone(), &operator.metrics) => Ok(()),
        ended = operator.lead(shutdown) => ended,
    }
}

impl Operator {
    /// Reconciles while this operator leads.
    async fn lead(&self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        if self.options.no_leader_election {
            return controller::run(self, shutdown).await;
        }
        let mut shutdown = pin!(shutdown);
        let mut election = Election::new(self);
        tokio::select! {
            () = election.acquire() => {}
            () = &mut shutdown => return Ok(()),
        }
        let ended = tokio::select! {
            () = election.hold() => return Err(Error::LeadershipLost),
            ended = controller::run(self, shutdown) => ended,
        };
        if timeout(RELEASE_LIMIT, election.release()).await.is_err() {
            tracing::warn!("the Lease was not released in time; it ends by itself");
        }
        ended
    }

    /// Binds now, answers when polled; never ends by itself with port 0.
    fn serve_http(&self) -> Result<impl Future<Output = Result<(), Error>> + use<>, Error> {
        let port = self.options.http_port;
        let failed = move |cause| Error::Listen { port, cause };
        let listener = match port {
            0 => None,
            port => Some(http::bind(port).map_err(failed)?),
        };
        let operator = self.clone();
        Ok(async move {
            match listener {
                None => std::future::pending().await,
                Some(listener) => http::serve(listener, operator).await.map_err(failed),
            }
        })
    }
}
