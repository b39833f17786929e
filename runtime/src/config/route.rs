//! `coterie route`.

use super::at_least_one;
use crate::route::{LaneLimits, Patience, Source};
use clap::Args;
use coterie_api::launch::TERMINATION_LOG;
use coterie_api::name::{HTTP_PORT, METRICS_PORT};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// `coterie route`.
#[derive(Clone, Debug, Args)]
pub struct RouteArgs {
    /// Address to listen on
    #[arg(long, default_value = "0.0.0.0")]
    pub host: IpAddr,
    /// Port for clients; 0 takes a free one
    #[arg(long, default_value_t = HTTP_PORT)]
    pub port: u16,
    /// Port for /metrics, and /load for the operator; 0 takes a free one
    #[arg(long, default_value_t = METRICS_PORT)]
    pub metrics_port: u16,
    /// Namespace whose ModelDeployments are served; may be given several times [default: all]
    #[arg(long = "namespace", value_name = "NAMESPACE", conflicts_with = "ranks_file")]
    pub namespaces: Vec<String>,
    /// Without Kubernetes: file that names models and their ranks, YAML or JSON; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub ranks_file: Option<PathBuf>,
    /// Folder with API keys, a file each, as a mounted Secret has them; read again when they change. Without it,
    /// everybody who reaches the port may ask
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
    /// A request may wait so long for a rank, seconds; then it gets status 503
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub hold_seconds: u32,
    /// Requests of one model that may wait; more get status 503
    #[arg(long, value_name = "REQUESTS", default_value_t = 4096, value_parser = at_least_one)]
    pub max_waiting: usize,
    /// Bytes of the bodies of one model's requests that wait at most; more get status 503
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20, value_parser = at_least_one)]
    pub max_waiting_bytes: usize,
    /// Bytes of all bodies over 64 KiB that are held at once, for as long as their requests run; more get status 503
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20, value_parser = at_least_one)]
    pub max_body_bytes: usize,
    /// Connections at once; more get status 503
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 8192, value_parser = at_least_one)]
    pub max_connections: usize,
    /// After SIGTERM, requests may take this many seconds to finish
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub drain_seconds: u32,
    /// File for the termination message; written only if it is there
    #[arg(long, value_name = "FILE", default_value = TERMINATION_LOG)]
    pub termination_log: PathBuf,
}

impl RouteArgs {
    /// Where the table comes from.
    pub fn source(&self) -> Source {
        match &self.ranks_file {
            Some(file) => Source::File(file.clone()),
            None => Source::Cluster(self.namespaces.clone()),
        }
    }

    /// How long it waits for what.
    pub fn patience(&self) -> Patience {
        Patience { hold: Duration::from_secs(self.hold_seconds.into()), ..Patience::default() }
    }

    /// What may wait.
    pub fn waiting(&self) -> LaneLimits {
        LaneLimits { requests: self.max_waiting, bytes: self.max_waiting_bytes }
    }
}
