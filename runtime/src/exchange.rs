//! Experts across ranks, over TCP: the [`Exchange`](coterie_engine::moe::exchange::Exchange) of a replica of several.
//! Blocking sockets and threads; the engine's thread writes a parcel and reads its answer itself.
//!
//! ```text
//!   rank 0                                                rank 1
//!   engine ── sender ═══════ parcels, answers ═══════ inbound ── desk (computes)
//!             link   ═══════ signs of life ══════════ inbound
//!   keeper (files)  loader (experts of new maps)          the same again
//! ```
//!
//! Pure, with time as an argument: [`frame`], [`parcel_frame`], [`hello`] (what goes over a connection), [`placed`],
//! [`lives`], [`routing`], [`map_life`], [`usual`] (what is decided). The rest waits for sockets, files and each other:
//! [`wire`] is one connection, [`tls`] protects it, [`link`] is the way to one other rank, [`inbound`] what others ask,
//! [`desk`] computes it, [`sender`] is what the engine uses, [`keeper`] follows the operator's files.
//! `docs/design/017-exchange.md` says why, `docs/one-token.md` follows one token through all of it.

pub mod counts;
mod desk;
#[cfg(test)]
mod fake;
pub mod files;
pub mod frame;
pub mod hello;
mod inbound;
mod keeper;
mod link;
pub mod lives;
pub mod map_life;
pub mod parcel_frame;
pub mod placed;
pub mod routing;
mod sender;
mod shared;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod usual;
pub mod wire;

pub use counts::Counts;
pub use sender::TcpExchange;

use coterie_api::expert_map::ExpertMap;
use coterie_api::expert_report::ExpertReport;
use coterie_api::launch::Activations;
use coterie_engine::moe::activations::row_bytes;
use coterie_engine::moe::exchange::ExpertHost;
use desk::Desk;
use files::Watched;
use frame::Limits;
use hello::Terms;
use inbound::Inbound;
use keeper::Keeper;
use link::Link;
use placed::Placed;
use shared::{Beginning, Shared};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread::Builder;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What one rank's exchange is told.
#[derive(Clone, Debug)]
pub struct ExchangeOptions {
    /// Its number.
    pub rank: u16,
    /// File with the expert map.
    pub map: PathBuf,
    /// File with the peers.
    pub peers: PathBuf,
    /// Folder with the certificates; without one, connections are plain.
    pub tls: Option<PathBuf>,
    /// How rows travel.
    pub activations: Activations,
    /// Hash of the model folder and of how the weights are held.
    pub model: [u8; 32],
    /// Rows of one step at most.
    pub step_rows: usize,
    /// Threads that compute other ranks' parcels; 0 takes all cores.
    pub threads: usize,
    /// A rank that was never reached is waited for so long before its experts are taken over.
    pub peer_wait: Duration,
    /// Experts that may be taken over at most, all layers together.
    pub adopt_limit: usize,
}

/// What the rest of the process sees of the exchange; empty until the model is loaded, and for ever where a replica
/// has one rank. Clones see the same.
#[derive(Clone, Default)]
pub struct Window {
    /// What is counted.
    pub counts: Counts,
    shared: Arc<OnceLock<Arc<Shared>>>,
}

impl Window {
    /// Everything about this rank's experts.
    pub fn report(&self) -> Option<ExpertReport> {
        self.shared.get().map(|shared| shared.report())
    }

    /// The ranks that are not reached, in words.
    pub fn unreached(&self) -> Option<String> {
        let unreached = self.shared.get()?.unreached();
        let words = unreached.into_iter().map(|(rank, why)| match why {
            Some(why) => format!("rank {rank} is not reached: {why}"),
            None => format!("rank {rank} is not reached yet"),
        });
        let words: Vec<String> = words.collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

/// Starts the exchange of a rank that holds what `map` gives it: others are answered on `listener`, `window` is opened,
/// and the engine is given its side. The threads end when that is dropped.
pub fn start(
    options: &ExchangeOptions,
    map: ExpertMap,
    listener: TcpListener,
    host: Arc<dyn ExpertHost>,
    window: &Window,
) -> Result<TcpExchange, String> {
    let shape = host.shape();
    if (map.layers(), map.experts()) != (shape.layers, shape.experts) {
        return Err(format!(
            "the expert map is for {} layers of {} experts, the model has {} of {}",
            map.layers(),
            map.experts(),
            shape.layers,
            shape.experts
        ));
    }
    let guard = tls::Guard::new(options.tls.as_deref())?;
    if !guard.is_on() {
        tracing::warn!("the exchange is neither encrypted nor protected; give every rank --exchange-tls to change that");
    }
    let limits = Limits { shape, row_bytes: row_bytes(options.activations, shape.hidden), step_rows: options.step_rows };
    let terms = Terms {
        model: options.model,
        shape,
        activations: options.activations,
        step_rows: u32::try_from(options.step_rows).map_err(|_| "a step has too many rows".to_owned())?,
    };
    let shared = Arc::new(Shared::new(Beginning {
        own: options.rank,
        terms,
        limits,
        host,
        guard,
        counts: window.counts.clone(),
        adopt_limit: options.adopt_limit,
        since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        map: Placed::new(map),
        peer_wait: options.peer_wait,
    }));
    let desk = Arc::new(Desk::default());
    let inbound = Inbound::new(shared.clone(), desk.clone());
    let links = sender::Links::default();
    let address = listener.local_addr().map_err(|error| format!("the exchange's port: {error}"))?;
    let (map, peers) = (Watched::new(&options.map), Watched::new(&options.peers));
    let mut keeper = Keeper::new(shared.clone(), links.clone(), map, peers);
    // From here on whatever fails ends what was started.
    let running =
        Running { shared: shared.clone(), desk: desk.clone(), inbound: inbound.clone(), links: links.clone(), address };
    keeper.look()?;
    let thread = |name: &str, body: Box<dyn FnOnce() + Send>| {
        let started = Builder::new().name(name.to_owned()).spawn(body);
        started.map(drop).map_err(|error| format!("no thread for the exchange: {error}"))
    };
    let (computing, threads) = (shared.clone(), options.threads);
    thread("exchange-desk", Box::new(move || desk.work(&computing.host, threads, &computing.counts)))?;
    thread("exchange-accept", Box::new(move || inbound.accept(&listener)))?;
    thread("exchange-keeper", Box::new(move || keeper.keep()))?;
    let loading = shared.clone();
    thread("exchange-loader", Box::new(move || keeper::load(&loading)))?;
    // A process loads one model.
    let _ = window.shared.set(shared.clone());
    tracing::info!(%address, rank = options.rank, tls = shared.guard.is_on(), "the exchange is open");
    Ok(TcpExchange::new(shared, links, running))
}

/// Ends all threads when it is dropped.
struct Running {
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    inbound: Arc<Inbound>,
    links: sender::Links,
    address: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.end();
        self.desk.close();
        self.inbound.close();
        let links = std::mem::take(&mut *self.links.lock().unwrap_or_else(PoisonError::into_inner));
        links.values().for_each(|link: &Arc<Link>| link.forget());
        // Whoever waits for a connection gets this one.
        let mut own = self.address;
        if own.ip().is_unspecified() {
            own.set_ip(if own.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
        }
        drop(TcpStream::connect_timeout(&own, Duration::from_millis(200)));
    }
}
