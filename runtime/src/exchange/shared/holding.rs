//! What a rank holds: its own experts, and those that it took over for a while.

use super::super::lives::Lives;
use super::super::map_life::{Maps, SETTLED};
use super::{Shared, State, Trouble};
use std::sync::PoisonError;
use std::time::Instant;

impl Shared {
    /// Takes an expert over, which takes as long as it takes to read. Whether it is held now; if not, the log says why.
    pub fn adopt(&self, layer: u16, expert: u16) -> bool {
        let key = (layer, expert);
        let (wide_layer, wide_expert) = (usize::from(layer), usize::from(expert));
        let room = {
            let mut state = self.state();
            let own = state.maps.is_own(self.own, wide_layer, wide_expert);
            let room = own || state.adopted.contains_key(&key) || state.adopted.len() < self.adopt_limit;
            if room && !own {
                state.adopted.insert(key, Instant::now());
            }
            room
        };
        if !room {
            let limit = self.adopt_limit;
            tracing::error!(
                layer,
                expert,
                limit,
                "an expert of a lost rank is not taken over: as many were as may be"
            );
            return false;
        }
        let began = Instant::now();
        match self.load(wide_layer, wide_expert) {
            Ok(true) => {
                let seconds = began.elapsed().as_secs_f64();
                tracing::warn!(layer, expert, seconds, "took over an expert of a lost rank");
                true
            }
            Ok(false) => true,
            Err(error) => {
                tracing::error!(layer, expert, error, "an expert of a lost rank could not be taken over");
                self.state().adopted.remove(&key);
                false
            }
        }
    }

    /// Loads an expert if it is not held, one at a time. Says whether it was loaded.
    pub fn load(&self, layer: usize, expert: usize) -> Result<bool, String> {
        let _turn = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if self.host.holds(layer, expert) {
            return Ok(false);
        }
        self.host.load(layer, expert).map(|()| true).map_err(|error| error.to_string())
    }

    /// Lets go what is not this rank's own and not needed any more, and counts what is held.
    pub fn release(&self) {
        let held = self.host.held();
        self.counts.held.set(held.iter().map(Vec::len).sum::<usize>() as i64);
        let maps = self.maps();
        let foreign: Vec<(u16, u16)> = foreign(&held, &maps, self.own).collect();
        let now = Instant::now();
        let mut state = self.state();
        let State { maps, lives, adopted, .. } = &mut *state;
        adopted.retain(|(layer, expert), asked| {
            let kept = !maps.is_own(self.own, usize::from(*layer), usize::from(*expert));
            kept && (now.saturating_duration_since(*asked) < SETTLED || foreign.contains(&(*layer, *expert)))
        });
        let unneeded: Vec<(u16, u16)> = foreign
            .into_iter()
            .filter(|(layer, expert)| {
                let asked = adopted.get(&(*layer, *expert));
                let needed = asked.is_some_and(|asked| now.saturating_duration_since(*asked) < SETTLED);
                !needed && maps.may_release(self.own, usize::from(*layer), usize::from(*expert), lives, now)
            })
            .collect();
        adopted.retain(|key, _| !unneeded.contains(key));
        self.counts.adopted.set(adopted.len() as i64);
        let refused = refused(self, maps, lives, adopted.len(), now);
        let versions = maps.versions();
        self.counts.peers_alive.set(lives.living().count() as i64);
        self.counts.map_read.set(versions.read as i64);
        self.counts.map_loaded.set(versions.loaded as i64);
        self.counts.map_routing.set(versions.routing as i64);
        // Without the lock: who loads just now is waited for.
        drop(state);
        self.trouble(Trouble::Adopting, refused);
        for (layer, expert) in &unneeded {
            self.host.release((*layer).into(), (*expert).into());
        }
        if !unneeded.is_empty() {
            tracing::info!(experts = unneeded.len(), "let go experts that others hold");
        }
    }
}

/// What it means that this rank may take over no more experts, once some have no living holder.
fn refused(shared: &Shared, maps: &Maps, lives: &Lives, adopted: usize, now: Instant) -> Option<String> {
    if adopted < shared.adopt_limit {
        return None;
    }
    let is_there = |rank| rank == shared.own || lives.alive(rank) || lives.expected(rank, now);
    (!maps.routing.covered(is_there)).then(|| {
        format!(
            "experts of lost ranks are needed, and this rank took over {adopted} and may take over no more: requests for \
             others wait until the lost rank is back; raise --adopt-limit (of a ModelDeployment: \
             template.resources.limits.memory)"
        )
    })
}

/// The experts that are held and that no map in use gives this rank.
fn foreign<'a>(held: &'a [Vec<u16>], maps: &'a Maps, own: u16) -> impl Iterator<Item = (u16, u16)> + 'a {
    held.iter().enumerate().flat_map(move |(layer, experts)| {
        let foreign = experts.iter().filter(move |expert| !maps.is_own(own, layer, usize::from(**expert)));
        foreign.map(move |expert| (layer as u16, *expert))
    })
}
