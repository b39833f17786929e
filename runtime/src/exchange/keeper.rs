//! Follows the files: who the ranks are, where the experts are to be, by which certificates ranks prove themselves.

use super::files::Watched;
use super::link::Link;
use super::placed::Placed;
use super::sender::Links;
use super::shared::{Shared, Trouble};
use coterie_api::expert_map::ExpertMap;
use coterie_api::peers::Peers;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How often files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked whether maps can be switched and experts let go.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
/// A tenth of the processor that a thread of answers gets beside it. Not the least there is: it holds locks for moments.
const LOADING_NICENESS: i32 = 10;
/// After an expert could not be loaded.
const LOAD_RETRY: Duration = Duration::from_secs(5);

/// The files of one rank.
pub struct Keeper {
    shared: Arc<Shared>,
    links: Links,
    map: Watched,
    /// Why the map in the file, which is one, is not taken.
    refused: Option<String>,
    peers: Watched,
}

impl Keeper {
    /// Of the files `map` and `peers`.
    pub fn new(shared: Arc<Shared>, links: Links, map: &Path, peers: &Path) -> Keeper {
        Keeper { shared, links, map: Watched::new(map), refused: None, peers: Watched::new(peers) }
    }

    /// Until the end.
    pub fn keep(mut self) {
        let mut looked = None;
        while !self.shared.ended() {
            if looked.is_none_or(|looked: Instant| looked.elapsed() >= LOOK_EVERY) {
                looked = Some(Instant::now());
                let trouble = self.look().err();
                self.shared.trouble(Trouble::Files, trouble);
            }
            self.shared.switch();
            self.shared.release();
            std::thread::sleep(FOLLOW_EVERY);
        }
    }

    /// Takes over what is new in the files. A file that is of no use hides no other; the first is told of.
    fn look(&mut self) -> Result<(), String> {
        let peers = self.peers();
        let map = self.map();
        let guard = self.shared.guard.refresh().map(|new| {
            if new {
                tracing::info!("new connections of the exchange use the new certificates");
            }
        });
        peers.and(map).and(guard)
    }

    fn map(&mut self) -> Result<(), String> {
        if let Some(map) = self.map.changed::<ExpertMap>()? {
            let current = self.shared.versions().read;
            let read = self.shared.read(Placed::new(map));
            let why = |refused| format!("the expert map is not taken: {refused}; version {current} goes on");
            // Told of for as long as the file is what it is.
            self.refused = read.err().map(why);
        }
        match &self.refused {
            Some(refused) => Err(refused.clone()),
            None => self.shared.all_named_are_known(),
        }
    }

    fn peers(&mut self) -> Result<(), String> {
        let Some(peers) = self.peers.changed::<Peers>()? else { return Ok(()) };
        let others = self.shared.know(peers);
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|rank, link| {
            let stays = others.contains(rank);
            if !stays {
                tracing::info!(rank, "a rank is no longer part of the replica");
                link.forget();
            }
            stays
        });
        for rank in others {
            if let Entry::Vacant(place) = links.entry(rank) {
                let link = Link::start(&self.shared, rank);
                place.insert(link.map_err(|error| format!("no thread for rank {rank}: {error}"))?);
            }
        }
        Ok(())
    }
}

/// Loads what new maps give this rank, one expert after the other, until the end.
pub fn load(shared: &Shared) {
    step_back();
    while !shared.ended() {
        let maps = shared.maps();
        if maps.loaded {
            shared.wait(FOLLOW_EVERY);
            continue;
        }
        let version = maps.newest.version();
        match load_own(shared, &maps.newest) {
            Ok(true) => {
                shared.trouble(Trouble::Loading, None);
                shared.loaded(version);
            }
            // A newer one was read meanwhile.
            Ok(false) => {}
            Err(error) => {
                let trouble = format!("experts of map version {version} cannot be loaded: {error}");
                shared.trouble(Trouble::Loading, Some(trouble));
                let retry = Instant::now() + LOAD_RETRY;
                while !shared.ended() && Instant::now() < retry && shared.versions().read == version {
                    shared.wait(LOAD_RETRY);
                }
            }
        }
    }
}

/// Loading is in no hurry: where this thread shares a core with those that answer, they go first.
fn step_back() {
    // SAFETY: it changes the calling thread alone, and nothing but how it is scheduled.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LOADING_NICENESS) };
    if done != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, "experts are loaded with the priority of answers");
    }
}

/// Whether all were loaded that `map` gives this rank.
fn load_own(shared: &Shared, map: &Placed) -> Result<bool, String> {
    for layer in 0..map.layers() {
        for &expert in map.held(layer, usize::from(shared.own)) {
            if shared.ended() || shared.versions().read != map.version() {
                return Ok(false);
            }
            shared.load(layer, usize::from(expert))?;
        }
    }
    Ok(true)
}
