//! The life of an expert map in a rank: read, loaded, used, and what it no longer gives released. Pure.
//!
//! Nobody waits for anybody: each rank follows its own copy of these rules, and what they do not foresee costs time,
//! not correctness, because who does not hold an expert says so.

use super::hello::Versions;
use super::lives::Lives;
use super::placed::Placed;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is not a rank's own is kept until a holder has lived for so long.
pub const SETTLED: Duration = Duration::from_secs(30);

/// The maps of one rank.
#[derive(Clone, Debug)]
pub struct Maps {
    /// By which tokens are sent.
    pub routing: Arc<Placed>,
    /// The newest that was read.
    pub newest: Arc<Placed>,
    /// All that the newest gives this rank is held.
    pub loaded: bool,
}

/// Why a map that was read is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Of another model.
    #[error("version {version} is for {found:?} layers and experts, the model has {expected:?}")]
    Shape {
        /// Of the map.
        version: u64,
        /// Its layers and experts.
        found: (usize, usize),
        /// The model's.
        expected: (usize, usize),
    },
    /// Not newer than what is known.
    #[error(
        "version {found} is not newer than {known}, and other than that; a changed map needs a new version"
    )]
    NotNewer {
        /// Of the map.
        found: u64,
        /// Known before.
        known: u64,
    },
}

impl Maps {
    /// At the start, with all that `map` gives this rank loaded.
    pub fn new(map: Arc<Placed>) -> Maps {
        Maps { routing: map.clone(), newest: map, loaded: true }
    }

    /// How far this rank is.
    pub fn versions(&self) -> Versions {
        let (read, routing) = (self.newest.version(), self.routing.version());
        Versions { read, loaded: if self.loaded { read } else { routing }, routing }
    }

    /// `map` was read. Says whether it is new.
    pub fn read(&mut self, map: Placed) -> Result<bool, NotTaken> {
        let (found, known) = (map.version(), self.newest.version());
        let shape = |map: &Placed| (map.layers(), map.experts());
        if shape(&map) != shape(&self.newest) {
            return Err(NotTaken::Shape {
                version: found,
                found: shape(&map),
                expected: shape(&self.newest),
            });
        }
        if **self.newest == *map {
            return Ok(false);
        }
        if found <= known {
            return Err(NotTaken::NotNewer { found, known });
        }
        self.newest = Arc::new(map);
        self.loaded = false;
        Ok(true)
    }

    /// All that the map of `version` gives this rank is held.
    pub fn load(&mut self, version: u64) {
        self.loaded |= version == self.newest.version();
    }

    /// Whether this rank, `own`, can send by the newest map now: it and all who live have loaded it, nobody is awaited
    /// whom it names, and no expert would be without a living holder that has one now.
    pub fn may_switch(&self, own: u16, lives: &Lives, now: Instant) -> bool {
        let version = self.newest.version();
        if !self.loaded || version == self.routing.version() {
            return false;
        }
        let named = 0..self.newest.ranks() as u16;
        let all_loaded = lives.living().all(|(_, peer)| peer.loaded == version);
        if !all_loaded || named.into_iter().any(|rank| lives.expected(rank, now)) {
            return false;
        }
        let answers = |rank| rank == own || lives.alive(rank);
        self.newest.covered(answers) || !self.routing.covered(answers)
    }

    /// Whether rank `own` may let go an expert: no map in use gives it one, nobody who lives sends by an older map, and
    /// a holder has lived long enough to be relied on.
    pub fn may_release(&self, own: u16, layer: usize, expert: usize, lives: &Lives, now: Instant) -> bool {
        let Maps { routing, newest, .. } = self;
        let settled = |rank: &u16| lives.alive_for(*rank, now).is_some_and(|time| time >= SETTLED);
        !self.is_own(own, layer, expert)
            && newest.version() == routing.version()
            && lives.living().all(|(_, peer)| peer.routing == routing.version())
            && routing.holders(layer, expert).iter().any(settled)
    }

    /// Whether a map in use gives that expert to rank `own`.
    pub fn is_own(&self, own: u16, layer: usize, expert: usize) -> bool {
        [&self.routing, &self.newest].iter().any(|map| map.holders(layer, expert).contains(&own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coterie_api::expert_map::ExpertMap;

    /// One layer of two experts; who holds them.
    fn map(version: u64, holders: &[&[u16]]) -> Placed {
        let layer = holders.iter().map(|held| held.to_vec()).collect();
        Placed::new(ExpertMap::new(version, 2, vec![layer]).unwrap())
    }

    fn at(version: u64) -> Versions {
        Versions { read: version, loaded: version, routing: version }
    }

    fn lives(ranks: &[u16], alive: &[(u16, Versions)], now: Instant) -> Lives {
        let mut lives = Lives::new(Duration::from_secs(60));
        lives.know(ranks, now);
        for (rank, versions) in alive {
            lives.reached(*rank, *versions, now);
        }
        lives
    }

    #[test]
    fn a_map_is_used_once_all_who_live_have_loaded_it() {
        let now = Instant::now();
        let mut maps = Maps::new(Arc::new(map(1, &[&[0], &[1]])));
        assert_eq!(maps.read(map(2, &[&[0, 1], &[1]])), Ok(true));
        assert_eq!(maps.versions(), Versions { read: 2, loaded: 1, routing: 1 });
        let behind = lives(&[1], &[(1, at(1))], now);
        let ready = lives(&[1], &[(1, Versions { loaded: 2, ..at(1) })], now);
        assert!(!maps.may_switch(0, &ready, now), "not loaded here");
        maps.load(1);
        assert!(!maps.loaded, "what was loaded for an older map does not count");
        maps.load(2);
        assert_eq!(maps.versions(), Versions { read: 2, loaded: 2, routing: 1 });
        assert!(!maps.may_switch(0, &behind, now) && maps.may_switch(0, &ready, now));
        let mut dead = behind;
        dead.missed(1, "gone");
        assert!(maps.may_switch(0, &dead, now), "who is gone is not waited for");
        maps.routing = maps.newest.clone();
        assert!(!maps.may_switch(0, &ready, now), "it is in use");
    }

    #[test]
    fn a_new_rank_is_waited_for_and_a_lost_one_makes_nothing_worse() {
        let now = Instant::now();
        let mut maps = Maps::new(Arc::new(map(1, &[&[0, 1], &[]])));
        maps.read(map(2, &[&[0], &[1]])).unwrap();
        maps.load(2);
        let mut lives = lives(&[1], &[], now);
        assert!(!maps.may_switch(0, &lives, now), "rank 1 is to come");
        lives.reached(1, at(2), now);
        assert!(maps.may_switch(0, &lives, now));
        lives.missed(1, "gone");
        assert!(!maps.may_switch(0, &lives, now), "by the old map nothing is lost");
        let mut maps = Maps::new(Arc::new(map(1, &[&[0], &[1]])));
        maps.read(map(2, &[&[], &[0, 1]])).unwrap();
        maps.load(2);
        assert!(maps.may_switch(0, &lives, now), "by the old map something is lost too");
    }

    #[test]
    fn only_a_newer_map_of_the_same_model_is_taken() {
        let mut maps = Maps::new(Arc::new(map(2, &[&[0], &[1]])));
        assert_eq!(maps.read(map(2, &[&[0], &[1]])), Ok(false));
        let refused = maps.read(map(2, &[&[1], &[0]]));
        assert_eq!(refused, Err(NotTaken::NotNewer { found: 2, known: 2 }));
        assert_eq!(maps.read(map(1, &[&[1], &[0]])), Err(NotTaken::NotNewer { found: 1, known: 2 }));
        let other = Placed::new(ExpertMap::even(3, 2, 2, 2).unwrap());
        assert!(matches!(maps.read(other), Err(NotTaken::Shape { found: (2, 2), expected: (1, 2), .. })));
        assert!(maps.loaded && maps.newest.version() == 2);
    }

    #[test]
    fn what_is_not_own_goes_when_a_holder_has_settled_and_nobody_uses_an_older_map() {
        let now = Instant::now();
        let later = now + SETTLED;
        let maps = Maps::new(Arc::new(map(2, &[&[0], &[1]])));
        let settled = lives(&[1], &[(1, at(2))], now);
        assert!(maps.may_release(0, 0, 1, &settled, later));
        assert!(!maps.may_release(0, 0, 0, &settled, later), "its own");
        assert!(!maps.may_release(0, 0, 1, &settled, later - Duration::from_millis(1)), "too early");
        let behind = lives(&[1, 2], &[(1, at(2)), (2, at(1))], now);
        assert!(!maps.may_release(0, 0, 1, &behind, later), "rank 2 sends by the old map");
        let mut gone = settled;
        gone.missed(1, "gone");
        assert!(!maps.may_release(0, 0, 1, &gone, later), "nobody else has it");
        let mut moving = maps;
        moving.read(map(3, &[&[0], &[1]])).unwrap();
        let settled = lives(&[1], &[(1, at(2))], now);
        assert!(!moving.may_release(0, 0, 1, &settled, later), "while maps change all is kept");
    }
}
