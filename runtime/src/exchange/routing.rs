//! Where an expert's tokens go: to a living holder by the map; if none is left, to a survivor that takes it over.

use super::lives::Lives;
use super::placed::Placed;
use coterie_engine::moe::exchange::Route;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// For so long nobody asks a rank again for an expert that it said it does not hold.
const LACKS: Duration = Duration::from_secs(1);

/// What ranks said they do not hold, or failed to take over.
#[derive(Debug, Default)]
pub struct Lacking(HashMap<(u16, u16, u16), Instant>);

impl Lacking {
    /// `rank` does not hold that expert.
    pub fn note(&mut self, rank: u16, layer: u16, expert: u16, now: Instant) {
        // A few thousand at most, and only while experts move or are lost.
        self.0.retain(|_, until| *until > now);
        self.0.insert((rank, layer, expert), now + LACKS);
    }

    /// Whether it said so lately.
    pub fn lacks(&self, rank: u16, layer: usize, expert: usize, now: Instant) -> bool {
        !self.0.is_empty()
            && self.0.get(&(rank, layer as u16, expert as u16)).is_some_and(|until| *until > now)
    }
}

/// What rank `own` sees when it looks where to send.
pub struct View<'a> {
    /// The asking rank.
    pub own: u16,
    /// The map in use.
    pub map: &'a Placed,
    /// The others.
    pub lives: &'a Lives,
    /// Who lacks what.
    pub lacking: &'a Lacking,
    /// Whether the asking rank itself may take over another expert.
    pub may_adopt: bool,
    /// The time.
    pub now: Instant,
}

impl View<'_> {
    /// Where the tokens of an expert go that rank `own` does not hold.
    pub fn route(&self, layer: usize, expert: usize) -> Route {
        let &View { own, map, lives, lacking, now, .. } = self;
        let holders = map.holders(layer, expert);
        let answers = |rank: &&u16| lives.alive(**rank) && !lacking.lacks(**rank, layer, expert, now);
        let count = holders.iter().filter(answers).count();
        if count > 0 {
            // Different ranks begin with different holders, so that copies share the work.
            let turn = (usize::from(own) + expert) % count;
            return holders.iter().filter(answers).nth(turn).map_or(Route::Nowhere, |rank| Route::To(*rank));
        }
        if holders.iter().any(|&rank| lives.expected(rank, now)) {
            return Route::Nowhere;
        }
        self.survivor(layer, expert)
    }

    /// Who takes an expert over: of the survivors in order number `expert`, round and round, or the next that can.
    /// All who see the same survivors choose alike, so an expert is not loaded twice.
    fn survivor(&self, layer: usize, expert: usize) -> Route {
        let mut survivors: Vec<u16> = self.lives.living().map(|(rank, _)| rank).collect();
        survivors.insert(survivors.partition_point(|rank| *rank < self.own), self.own);
        let can = |rank: u16| {
            let willing = rank != self.own || self.may_adopt;
            willing && !self.lacking.lacks(rank, layer, expert, self.now)
        };
        let turns = (0..survivors.len()).map(|turn| survivors[(expert + turn) % survivors.len()]);
        turns.into_iter().find(|rank| can(*rank)).map_or(Route::Nowhere, Route::Adopt)
    }

    /// Whether each of these experts has a living holder beside `rank`.
    pub fn replaceable(&self, rank: u16, layer: usize, experts: &[(u16, u32)]) -> bool {
        experts.iter().all(|&(expert, _)| {
            let expert = usize::from(expert);
            let holders = self.map.holders(layer, expert).iter();
            let others = holders.filter(|other| **other != rank && self.lives.alive(**other));
            others.into_iter().any(|other| !self.lacking.lacks(*other, layer, expert, self.now))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::hello::Versions;
    use super::*;
    use coterie_api::expert_map::ExpertMap;

    const WAIT: Duration = Duration::from_secs(60);

    struct World {
        map: Placed,
        lives: Lives,
        lacking: Lacking,
        at: Instant,
    }

    /// Expert 0 on rank 1, expert 1 on ranks 1 and 2, expert 2 on rank 2, expert 3 on ranks 1, 2 and 3.
    fn world(alive: &[u16]) -> World {
        let at = Instant::now();
        let layer = vec![vec![], vec![0, 1, 3], vec![1, 2, 3], vec![3]];
        let mut lives = Lives::new(WAIT);
        lives.know(&[1, 2, 3], at);
        for &rank in alive {
            lives.reached(rank, Versions::default(), at);
        }
        World {
            map: Placed::new(ExpertMap::new(1, 4, vec![layer]).unwrap()),
            lives,
            lacking: Lacking::default(),
            at,
        }
    }

    impl World {
        fn view(&self, own: u16, now: Instant) -> View<'_> {
            View { own, map: &self.map, lives: &self.lives, lacking: &self.lacking, may_adopt: true, now }
        }

        fn routes(&self, own: u16, now: Instant) -> Vec<Route> {
            (0..4).map(|expert| self.view(own, now).route(0, expert)).collect()
        }
    }

    #[test]
    fn tokens_go_to_holders_and_copies_share_them() {
        let world = world(&[1, 2, 3]);
        use Route::To;
        assert_eq!(world.routes(0, world.at), [To(1), To(2), To(2), To(1)]);
        let of_three: Vec<Route> = (0..3).map(|own| world.view(own, world.at).route(0, 3)).collect();
        assert_eq!(of_three, [To(1), To(2), To(3)]);
    }

    #[test]
    fn a_lost_ranks_tokens_go_to_other_holders_and_to_survivors_that_take_over() {
        let mut world = world(&[1, 2, 3]);
        world.lives.missed(2, "gone");
        use Route::{Adopt, To};
        // Survivors are 0, 1, 3; expert 2 is the third's.
        assert_eq!(world.routes(0, world.at), [To(1), To(1), Adopt(3), To(3)]);
        assert_eq!(world.view(3, world.at).survivor(0, 2), Adopt(3), "the chosen one chooses itself");
        world.lacking.note(3, 0, 2, world.at);
        assert_eq!(world.view(0, world.at).route(0, 2), Adopt(0), "who refuses is passed over");
        let mut view = world.view(0, world.at);
        view.may_adopt = false;
        assert_eq!(view.route(0, 2), Adopt(1));
        world.lacking.note(1, 0, 2, world.at);
        let mut view = world.view(0, world.at);
        view.may_adopt = false;
        assert_eq!(view.route(0, 2), Route::Nowhere, "when nobody can, all wait");
        assert_eq!(world.view(0, world.at + LACKS).route(0, 2), Adopt(3), "and ask again");
    }

    #[test]
    fn who_was_never_reached_is_waited_for() {
        let world = world(&[1]);
        use Route::{Adopt, Nowhere, To};
        assert_eq!(world.routes(0, world.at), [To(1), To(1), Nowhere, To(1)]);
        assert_eq!(world.routes(0, world.at + WAIT), [To(1), To(1), Adopt(0), To(1)]);
    }

    #[test]
    fn who_says_that_it_lacks_an_expert_is_not_asked_for_a_while() {
        let mut world = world(&[1, 2, 3]);
        world.lacking.note(2, 0, 1, world.at);
        assert_eq!(world.view(0, world.at).route(0, 1), Route::To(1));
        assert_eq!(world.view(0, world.at).route(0, 2), Route::To(2), "of other experts nothing was said");
        assert_eq!(world.view(0, world.at + LACKS).route(0, 1), Route::To(2));
    }

    #[test]
    fn only_what_has_another_living_holder_can_be_sent_elsewhere() {
        let mut world = world(&[1, 2]);
        let replaceable = |world: &World, rank, experts: &[u16]| {
            let experts: Vec<(u16, u32)> = experts.iter().map(|expert| (*expert, 1)).collect();
            world.view(0, world.at).replaceable(rank, 0, &experts)
        };
        assert!(replaceable(&world, 2, &[1, 3]) && !replaceable(&world, 2, &[1, 2]));
        world.lacking.note(1, 0, 1, world.at);
        assert!(!replaceable(&world, 2, &[1]));
        world.lives.missed(1, "gone");
        assert!(!replaceable(&world, 2, &[3]));
    }

    #[test]
    fn every_set_of_living_ranks_has_a_route_for_every_expert() {
        for alive in 0..8_u16 {
            let ranks: Vec<u16> = (1..=3).filter(|rank| alive & (1 << (rank - 1)) != 0).collect();
            let world = world(&ranks);
            for now in [world.at, world.at + WAIT] {
                for (expert, route) in world.routes(0, now).into_iter().enumerate() {
                    let holders = world.map.holders(0, expert);
                    match route {
                        Route::To(rank) => assert!(ranks.contains(&rank) && holders.contains(&rank)),
                        Route::Adopt(rank) => {
                            assert!(rank == 0 || ranks.contains(&rank));
                            assert!(!holders.iter().any(|holder| ranks.contains(holder)));
                        }
                        Route::Here => panic!("nothing is loaded here"),
                        Route::Nowhere => {
                            assert!(now == world.at && holders.iter().any(|h| !ranks.contains(h)))
                        }
                    }
                }
            }
        }
    }
}
