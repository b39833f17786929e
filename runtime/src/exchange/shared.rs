//! What the threads of the exchange share: the maps, who lives, what was taken over.

mod holding;

use super::counts::ExchangeCounts;
use super::hello::{Terms, Versions};
use super::limits::Limits;
use super::lives::Lives;
use super::map_life::Maps;
use super::placed::Placed;
use super::routing::{Lacking, View};
use super::tls::Guard;
use coterie_api::expert_report::ExpertReport;
use coterie_api::peers::Peers;
use coterie_engine::moe::exchange::{ExpertHost, Route};
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the threads of the exchange share; what it was given is read as its own.
pub struct Shared {
    given: Given,
    state: Mutex<State>,
    changed: Condvar,
    /// Held while an expert is read, so that only one is in memory twice.
    loading: Mutex<()>,
    ended: AtomicBool,
}

/// What does not change.
pub struct Given {
    pub own: u16,
    pub terms: Terms,
    pub limits: Limits,
    pub host: Arc<dyn ExpertHost>,
    pub guard: Guard,
    pub counts: ExchangeCounts,
    pub adopt_limit: usize,
    /// Seconds since 1970.
    pub since: u64,
}

impl Deref for Shared {
    type Target = Given;

    fn deref(&self) -> &Given {
        &self.given
    }
}

struct State {
    maps: Maps,
    lives: Lives,
    lacking: Lacking,
    addresses: Peers,
    /// Experts taken over, and when somebody last asked for that.
    adopted: HashMap<(u16, u16), Instant>,
    trouble: [Option<String>; 3],
}

/// What may be wrong, each with a sentence of its own.
#[derive(Clone, Copy)]
pub enum Trouble {
    /// With the files.
    Files,
    /// With loading experts.
    Loading,
    /// With taking over experts of lost ranks.
    Adopting,
}

impl Shared {
    /// Of a rank that has loaded what `map` gives it, and waits so long for ranks that it has never reached.
    pub fn new(given: Given, map: Placed, peer_wait: Duration) -> Shared {
        let state = State {
            maps: Maps::new(Arc::new(map)),
            lives: Lives::new(peer_wait),
            lacking: Lacking::default(),
            addresses: Peers::default(),
            adopted: HashMap::new(),
            trouble: [None, None, None],
        };
        let (state, changed, loading) = (Mutex::new(state), Condvar::new(), Mutex::new(()));
        Shared { given, state, changed, loading, ended: AtomicBool::new(false) }
    }

    // Poisoned only by a panic of ours, which was logged; every change under the lock is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all threads are to end.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// All threads are to end.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Waits for a change of anything, for `time` at most.
    pub fn wait(&self, time: Duration) {
        let state = self.state();
        if !self.ended() {
            drop(self.changed.wait_timeout(state, time));
        }
    }

    /// Where the tokens of an expert go that is not held here; to be taken over by this rank itself, perhaps.
    pub fn route(&self, layer: usize, expert: usize) -> Route {
        self.state().view(self, Instant::now()).route(layer, expert)
    }

    /// `rank` does not hold these experts.
    pub fn lacks(&self, rank: u16, layer: u16, experts: impl Iterator<Item = u16>) {
        let now = Instant::now();
        let mut state = self.state();
        experts.for_each(|expert| state.lacking.note(rank, layer, expert, now));
    }

    /// Whether each of these experts has a living holder beside `rank`.
    pub fn replaceable(&self, rank: u16, layer: u16, experts: &[(u16, u32)]) -> bool {
        self.state().view(self, Instant::now()).replaceable(rank, usize::from(layer), experts)
    }

    /// From now on there are these ranks. The numbers of the others.
    pub fn know(&self, peers: Peers) -> Vec<u16> {
        let others: Vec<u16> = peers.iter().map(|peer| peer.rank).filter(|rank| *rank != self.own).collect();
        let mut state = self.state();
        state.lives.know(&others, Instant::now());
        state.addresses = peers;
        drop(state);
        self.changed.notify_all();
        others
    }

    /// Where `rank` is reached.
    pub fn address(&self, rank: u16) -> Option<String> {
        self.state().addresses.address(rank).map(str::to_owned)
    }

    /// `rank` can be sent to from now on.
    pub fn reached(&self, rank: u16, versions: Versions) {
        if self.state().lives.reached(rank, versions, Instant::now()) {
            tracing::info!(rank, "a rank is reached");
        }
        self.changed.notify_all();
    }

    /// `rank` says how far it is.
    pub fn heard(&self, rank: u16, versions: Versions) {
        self.state().lives.heard(rank, versions);
    }

    /// `rank` cannot be sent to.
    pub fn missed(&self, rank: u16, why: &str) {
        if self.state().lives.missed(rank, why) {
            tracing::warn!(rank, why, "a rank cannot be sent to");
        }
        self.changed.notify_all();
    }

    /// Which ranks are not reached, each with the reason.
    pub fn unreached(&self) -> Vec<(u16, Option<String>)> {
        use coterie_api::expert_report::PeerState::Alive;
        let peers = self.state().lives.report();
        peers.into_iter().filter(|peer| peer.state != Alive).map(|peer| (peer.rank, peer.why)).collect()
    }

    /// The maps as they are now.
    pub fn maps(&self) -> Maps {
        self.state().maps.clone()
    }

    /// How far this rank is.
    pub fn versions(&self) -> Versions {
        self.state().maps.versions()
    }

    /// A map was read. Says whether it is new.
    pub fn read(&self, map: Placed) -> Result<bool, String> {
        let version = map.version();
        let new = self.state().maps.read(map).map_err(|refused| refused.to_string())?;
        if new {
            tracing::info!(version, "a new expert map; loading what it gives this rank");
            self.changed.notify_all();
        }
        Ok(new)
    }

    /// An error that names the ranks to which the newest map gives experts and which are not among the peers: nobody
    /// sends by it until they are.
    pub fn all_named_are_known(&self) -> Result<(), String> {
        let state = self.state();
        let map = &state.maps.newest;
        if map.version() == state.maps.routing.version() {
            return Ok(());
        }
        let unknown = |rank: &u16| {
            *rank != self.own
                && map.slots_of(usize::from(*rank)) > 0
                && !state.addresses.iter().any(|peer| peer.rank == *rank)
        };
        let unknown: Vec<String> =
            (0..map.ranks() as u16).filter(unknown).map(|rank| rank.to_string()).collect();
        match unknown.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "expert map {} gives experts to rank {}, which the peers file does not name: tokens go by version {} \
                 until it does",
                map.version(),
                unknown.join(" and "),
                state.maps.routing.version()
            )),
        }
    }

    /// All that the map of `version` gives this rank is held.
    pub fn loaded(&self, version: u64) {
        self.state().maps.load(version);
        tracing::info!(version, "the experts of the new map are loaded");
        self.changed.notify_all();
    }

    /// Sends by the newest map if that is possible now.
    pub fn switch(&self) {
        let mut state = self.state();
        if state.maps.may_switch(self.own, &state.lives, Instant::now()) {
            state.maps.routing = state.maps.newest.clone();
            tracing::info!(version = state.maps.routing.version(), "tokens go by the new expert map");
        }
    }

    /// Something is wrong, or no longer. Said once in the log.
    pub fn trouble(&self, kind: Trouble, now: Option<String>) {
        let mut state = self.state();
        let before = &mut state.trouble[kind as usize];
        if *before != now {
            if let Some(trouble) = &now {
                match kind {
                    Trouble::Files => tracing::warn!(trouble, "a file of the exchange is not followed"),
                    Trouble::Loading => tracing::warn!(trouble, "the expert map is not followed"),
                    Trouble::Adopting => tracing::warn!(trouble, "experts are not taken over"),
                }
            }
            *before = now;
        }
    }

    /// Everything about this rank's experts.
    pub fn report(&self) -> ExpertReport {
        let held = self.host.held();
        let state = self.state();
        let versions = state.maps.versions();
        let trouble: Vec<&str> = state.trouble.iter().flatten().map(String::as_str).collect();
        ExpertReport {
            rank: self.own,
            since: self.since,
            read_version: versions.read,
            loaded_version: versions.loaded,
            routing_version: versions.routing,
            trouble: (!trouble.is_empty()).then(|| trouble.join("; ")),
            adopted: state.adopted.len() as u32,
            peers: state.lives.report(),
            tokens: self.host.tokens(),
            held: held.iter().map(Vec::len).sum::<usize>() as u32,
            expert_bytes: self.host.bytes(),
        }
    }
}

impl State {
    fn view(&self, shared: &Shared, now: Instant) -> View<'_> {
        View {
            own: shared.own,
            map: &self.maps.routing,
            lives: &self.lives,
            lacking: &self.lacking,
            may_adopt: self.adopted.len() < shared.adopt_limit,
            now,
        }
    }
}
