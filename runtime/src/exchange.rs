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
//! Pure, with time as an argument: [`frame`], [`limits`], [`parcel_frame`], [`hello`] (what goes over a connection), [`placed`],
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
pub mod limits;
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

pub use counts::ExchangeCounts;
pub use sender::TcpExchange;

use coterie_api::expert_map::ExpertMap;
use coterie_api::expert_report::ExpertReport;
use coterie_api::launch::{Activations, Quantization};
use coterie_api::peers::Peers;
use coterie_engine::moe::activations::row_bytes;
use coterie_engine::moe::exchange::ExpertHost;
use desk::Desk;
use hello::Terms;
use inbound::Inbound;
use keeper::Keeper;
use limits::Limits;
use placed::Placed;
use sender::Links;
use shared::{Given, Shared};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread::Builder;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tls::Guard;

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
    /// Digest of the model folder.
    pub model: [u8; 32],
    /// How the weights are held.
    pub quantization: Quantization,
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
    pub counts: ExchangeCounts,
    shared: Arc<OnceLock<Arc<Shared>>>,
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").field("open", &self.shared.get().is_some()).finish_non_exhaustive()
    }
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

/// An exchange that was found possible before the model is loaded: files are readable, the port is ours.
pub struct Prepared {
    options: ExchangeOptions,
    map: ExpertMap,
    guard: Guard,
    listener: TcpListener,
}

impl Prepared {
    /// Reads the files and listens on `address`; who connects waits until the exchange is [opened](Prepared::open).
    pub fn new(options: ExchangeOptions, address: SocketAddr) -> Result<Prepared, String> {
        let map = files::read(&options.map)?;
        let listener = TcpListener::bind(address).map_err(|error| {
            format!("cannot listen on {address} for the exchange: {error}; stop what uses the port, or choose another")
        })?;
        Prepared::with(options, map, listener)
    }

    fn with(options: ExchangeOptions, map: ExpertMap, listener: TcpListener) -> Result<Prepared, String> {
        files::read::<Peers>(&options.peers)?;
        let guard = Guard::new(options.tls.as_deref())?;
        if !guard.is_on() {
            tracing::warn!("the exchange is neither encrypted nor protected; --exchange-tls changes that");
        }
        Ok(Prepared { options, map, guard, listener })
    }

    /// This rank's number.
    pub fn rank(&self) -> u16 {
        self.options.rank
    }

    /// How rows travel.
    pub fn activations(&self) -> Activations {
        self.options.activations
    }

    /// The map whose experts this rank is to load.
    pub fn map(&self) -> &ExpertMap {
        &self.map
    }

    /// Starts the exchange of a rank whose `host` holds what the map gives it. `window` shows it, the engine is given
    /// its side; the threads end when that is dropped. Fails if the system has no thread left.
    pub fn open(self, host: Arc<dyn ExpertHost>, window: &Window) -> io::Result<TcpExchange> {
        let Prepared { options, map, guard, listener } = self;
        let address = listener.local_addr()?;
        let (shape, activations, step_rows) = (host.shape(), options.activations, options.step_rows);
        let given = Given {
            own: options.rank,
            terms: Terms {
                model: options.model,
                quantization: options.quantization,
                shape,
                activations,
                step_rows: u32::try_from(step_rows).unwrap_or(u32::MAX),
            },
            limits: Limits { shape, row_bytes: row_bytes(activations, shape.hidden), step_rows },
            host,
            guard,
            counts: window.counts.clone(),
            adopt_limit: options.adopt_limit,
            since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        };
        let shared = Arc::new(Shared::new(given, Placed::new(map), options.peer_wait));
        let desk = Arc::new(Desk::default());
        let inbound = Inbound::new(shared.clone(), desk.clone());
        let links = Links::default();
        // From here on whatever fails ends what was started.
        let running = Running {
            shared: shared.clone(),
            desk: desk.clone(),
            inbound: inbound.clone(),
            links: links.clone(),
            address,
        };
        let thread = |name: &str, body: Box<dyn FnOnce() + Send>| {
            Builder::new().name(name.to_owned()).spawn(body).map(drop)
        };
        let (computing, threads) = (shared.clone(), options.threads);
        thread("exchange-desk", Box::new(move || desk.work(&computing.host, threads, &computing.counts)))?;
        thread("exchange-in", Box::new(move || inbound.accept(&listener)))?;
        let keeper = Keeper::new(shared.clone(), links.clone(), &options.map, &options.peers);
        thread("exchange-keep", Box::new(move || keeper.keep()))?;
        let loading = shared.clone();
        thread("exchange-load", Box::new(move || keeper::load(&loading)))?;
        // A process loads one model.
        let _ = window.shared.set(shared.clone());
        tracing::info!(%address, rank = options.rank, tls = shared.guard.is_on(), "the exchange is open");
        Ok(TcpExchange::new(shared, links, running))
    }
}

/// Ends all threads when it is dropped.
struct Running {
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    inbound: Arc<Inbound>,
    links: Links,
    address: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.end();
        self.desk.close();
        self.inbound.close();
        let links = std::mem::take(&mut *self.links.lock().unwrap_or_else(PoisonError::into_inner));
        links.values().for_each(|link| link.forget());
        // Whoever waits for a connection gets this one.
        let mut own = self.address;
        if own.ip().is_unspecified() {
            own.set_ip(if own.is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            });
        }
        drop(TcpStream::connect_timeout(&own, Duration::from_millis(200)));
    }
}
