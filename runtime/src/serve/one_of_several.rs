//! A rank whose replica has several: what must be known before its weights are read, and its engine.

use crate::config::ServeArgs;
use crate::exchange::{ExchangeOptions, Prepared, Window};
use crate::termination::{failed, not_loaded};
use coterie_api::launch::Termination;
use coterie_engine::digest::digest;
use coterie_engine::engine::Engine;
use coterie_engine::moe::share::Share;
use coterie_engine::{EngineOptions, LoadError};
use std::path::Path;
use std::time::Duration;

/// The exchange that the command line asks for, if it does: its files are read and its port is taken.
pub fn prepare(args: &ServeArgs) -> Result<Option<Prepared>, Termination> {
    let ranks = &args.ranks;
    let (Some(rank), Some(map), Some(peers)) = (ranks.rank, &ranks.expert_map, &ranks.peers) else {
        return Ok(None);
    };
    let options = ExchangeOptions {
        rank,
        map: map.clone(),
        peers: peers.clone(),
        tls: ranks.exchange_tls.clone(),
        activations: ranks.activations,
        model: digest(&args.model).map_err(not_loaded)?,
        quantization: args.quantization,
        // A step has at least a row for each request that runs.
        step_rows: args.step_tokens.max(args.max_running),
        threads: args.threads,
        peer_wait: Duration::from_secs(ranks.peer_wait.into()),
        adopt_limit: ranks.adopt_limit.unwrap_or(usize::MAX),
    };
    Prepared::new(options, (args.host, ranks.exchange_port).into()).map(Some).map_err(failed)
}

/// Loads what the map gives this rank, and opens the exchange.
pub fn load(
    dir: &Path,
    options: &EngineOptions,
    prepared: Prepared,
    window: &Window,
    progress: &dyn Fn(f32),
) -> Result<Engine, LoadError> {
    let (rank, map, activations) = (prepared.rank().into(), prepared.map().clone(), prepared.activations());
    let connect = |host| match prepared.open(host, window) {
        Ok(exchange) => Ok(Box::new(exchange) as _),
        Err(source) => Err(LoadError::Exchange { source }),
    };
    let share = Share { rank, map: &map, activations, connect: Box::new(connect) };
    Engine::load_with(dir, options, Some(share), |_| {}, progress)
}
