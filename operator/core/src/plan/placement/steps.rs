//! Steps from a layer to a better one: the neighbourhood of the local search.
//!
//! A step depends on what is held and on nothing else, so a walk can be interrupted anywhere and goes on alike. It ends:
//! first slots beyond shares become fewer, then empty ones, then crowded copies, then the busiest rank's load or the number
//! of ranks that have it, and what comes earlier in this order never becomes more again.

use super::layer::Layer;
use super::moves::Move;
use super::terms::SMALLEST;
use std::cmp::Ordering;

impl Layer<'_> {
    /// Takes one step; false if there is none.
    pub(super) fn step(&mut self) -> bool {
        let step =
            self.shed().or_else(|| self.fill()).or_else(|| self.part_copies()).or_else(|| self.improve());
        if let Some(step) = &step {
            self.apply(step);
        }
        step.is_some()
    }

    /// Takes steps until there is none.
    pub(super) fn settle(&mut self) {
        while self.step() {}
    }

    /// Makes the copies that are asked for and that nobody holds.
    pub(super) fn complete(&mut self) {
        while self.missing() > 0
            && let Some(step) = self.fill()
        {
            self.apply(&step);
        }
    }

    /// Gives up copies beyond those that are asked for, of ranks beyond their shares first.
    pub(super) fn trim(&mut self) {
        while self.beyond() > 0 {
            let ranks = 0..self.ranks();
            let over = ranks.clone().filter(|&rank| self.slots(rank) > self.terms.shares[rank]);
            let Some(step) = self.drop_of(over).or_else(|| self.drop_of(ranks)) else { return };
            self.apply(&step);
        }
    }

    fn drop_of(&self, ranks: impl Iterator<Item = usize>) -> Option<Move> {
        let mut best = Best::new(self);
        for rank in ranks {
            let further = self.held(rank).filter(|&expert| self.copies(expert) > 1);
            further.for_each(|expert| best.offer(Move::drop(expert, rank)));
        }
        best.step
    }

    /// A rank that holds more than its share gives a slot away.
    pub(super) fn shed(&self) -> Option<Move> {
        let mut beyond = (0..self.ranks()).filter(|&rank| self.slots(rank) > self.terms.shares[rank]);
        beyond.find_map(|rank| self.shed_from(rank))
    }

    /// The best way to free a slot of `from`: a copy of what is held elsewhere is dropped, or else an expert goes to an
    /// empty slot or in place of a copy. Shares have room for all experts, so there is a way for one of the ranks that
    /// hold more than theirs.
    pub(super) fn shed_from(&self, from: usize) -> Option<Move> {
        self.drop_of(std::iter::once(from)).or_else(|| {
            let mut best = Best::new(self);
            for expert in self.held(from) {
                self.destinations(expert, |to, instead| {
                    let shift = Move::shift(expert, from, to);
                    best.offer(instead.map_or(shift, |copy| shift.instead_of(copy, to)));
                });
            }
            best.step
        })
    }

    /// The best place for an expert that nobody holds: there is one, because shares have room for all experts. In place of
    /// a copy, which has to be made again elsewhere, only if nothing else is left.
    pub(super) fn rescue(&self, expert: usize) -> Option<Move> {
        let mut best = Best::new(self);
        let room = (0..self.ranks()).filter(|&rank| self.has_room(rank));
        room.for_each(|to| best.offer(Move::copy(expert, to)));
        if best.step.is_none() {
            for to in 0..self.ranks() {
                for other in self.held(to).filter(|&other| self.copies(other) > 1) {
                    best.offer(Move::copy(expert, to).instead_of(other, to));
                }
            }
        }
        best.step
    }

    /// Every rank without `expert` that has room within its share, or a copy that can make room.
    fn destinations(&self, expert: usize, mut see: impl FnMut(usize, Option<usize>)) {
        for to in (0..self.ranks()).filter(|&rank| !self.holds(rank, expert)) {
            if self.has_room(to) {
                see(to, None);
            } else if self.slots(to) == self.terms.shares[to] {
                self.held(to).filter(|&other| self.copies(other) > 1).for_each(|other| see(to, Some(other)));
            }
        }
    }

    /// Two copies that share a node are parted, if there is a node without: by a swap or a shift, or else one of them is
    /// given up for a copy of something else.
    fn part_copies(&self) -> Option<Move> {
        if !self.spread || self.terms.node_count == 1 {
            return None;
        }
        let is_crowded = |&expert: &usize| self.copies(expert) > 1 && self.crowd(expert, None, None) > 0;
        (0..self.experts()).filter(is_crowded).find_map(|expert| {
            let mut best = Best::new(self);
            let mut offer = |step: Move| {
                if self.crowding(&step) < 0 {
                    best.offer(step);
                }
            };
            for from in self.holders(expert) {
                for to in (0..self.ranks()).filter(|&to| !self.holds(to, expert)) {
                    if self.has_room(to) {
                        offer(Move::shift(expert, from, to));
                    }
                    for other in self.held(to).filter(|&other| !self.holds(from, other)) {
                        offer(Move::swap(expert, from, other, to));
                    }
                }
            }
            best.step.or_else(|| {
                let mut best = Best::new(self);
                for from in self.holders(expert) {
                    for other in (0..self.experts()).filter(|&other| !self.holds(from, other)) {
                        let step = Move::copy(other, from).instead_of(expert, from);
                        if self.crowding(&step) < 0 {
                            best.offer(step);
                        }
                    }
                }
                best.step
            })
        })
    }

    /// The step that helps the busiest rank most: all ranks that it changes are less busy afterwards than that one was.
    /// Copies are looked at only where nothing else helps: they change many ranks, and most of them do not help.
    fn improve(&self) -> Option<Move> {
        let from = self.busiest();
        if self.terms.uncounted || self.load(from) <= self.enough {
            return None;
        }
        let mut best = Best::below(self, self.load(from) * (1.0 - SMALLEST));
        self.offer_swaps(from, &mut best);
        if best.step.is_none() {
            self.offer_copies_elsewhere(from, &mut best);
            self.offer_copies_here(from, &mut best);
        }
        best.step
    }

    /// Experts of the busiest rank against others, or into empty slots.
    fn offer_swaps(&self, from: usize, best: &mut Best) {
        let load = self.load(from);
        let mut order: Vec<usize> = (0..self.ranks()).filter(|&rank| rank != from).collect();
        order.sort_by(|&a, &b| self.load(a).total_cmp(&self.load(b)));
        for to in order {
            // Two ranks can at best become alike.
            if (load + self.load(to)) / 2.0 >= best.bound {
                break;
            }
            for expert in self.held(from).filter(|&expert| !self.holds(to, expert)) {
                let part = self.part(expert);
                if self.has_room(to) && (load - part).max(self.load(to) + part) < best.bound {
                    best.offer(Move::shift(expert, from, to));
                }
                for other in self.held(to) {
                    let less = part - self.part(other);
                    let after = (load - less).max(self.load(to) + less);
                    if less > 0.0 && after < best.bound && !self.holds(from, other) {
                        best.offer(Move::swap(expert, from, other, to));
                    }
                }
            }
        }
    }

    /// Another rank gets a copy of an expert of the busiest one.
    fn offer_copies_elsewhere(&self, from: usize, best: &mut Best) {
        for to in (0..self.ranks()).filter(|&rank| rank != from) {
            let makes_room = |&other: &usize| self.copies(other) > 1;
            let room = self.has_room(to);
            if !room && !self.held(to).any(|other| makes_room(&other)) {
                continue;
            }
            for expert in self.held(from).filter(|&expert| !self.holds(to, expert)) {
                let copies = self.copies(expert) as f64;
                let part = self.part(expert) * copies / (copies + 1.0);
                if self.load(from) - (self.part(expert) - part) >= best.bound {
                    continue;
                }
                if room && self.load(to) + part < best.bound {
                    best.offer(Move::copy(expert, to));
                }
                for other in self.held(to).filter(makes_room) {
                    if self.load(to) + part - self.part(other) < best.bound {
                        best.offer(Move::copy(expert, to).instead_of(other, to));
                    }
                }
            }
        }
    }

    /// The busiest rank gets a copy of something light in place of a copy.
    fn offer_copies_here(&self, from: usize, best: &mut Best) {
        for other in self.held(from).filter(|&other| self.copies(other) > 1) {
            let rest = self.load(from) - self.part(other);
            for expert in (0..self.experts()).filter(|&expert| !self.holds(from, expert)) {
                let copies = self.copies(expert) as f64;
                if rest + self.part(expert) * copies / (copies + 1.0) < best.bound {
                    best.offer(Move::copy(expert, from).instead_of(other, from));
                }
            }
        }
    }

    /// An empty slot of the least busy rank that has one gets a copy: what helps the busiest rank most; or else, if the rank
    /// does not become as busy as that one, of an expert with few copies, a light one; or else what harms least. Another
    /// rank's slot only if each of these would crowd a node. A rank with room lacks an expert, because no share is larger
    /// than there are experts.
    fn fill(&self) -> Option<Move> {
        let mut order: Vec<usize> = (0..self.ranks()).filter(|&rank| self.has_room(rank)).collect();
        order.sort_by(|&a, &b| self.load(a).total_cmp(&self.load(b)));
        let mut crowding = None;
        for to in order {
            let Some((expert, crowds)) = self.copy_for(to) else { continue };
            if !crowds {
                return Some(Move::copy(expert, to));
            }
            crowding = crowding.or(Some(Move::copy(expert, to)));
        }
        crowding
    }

    /// The expert of which `to` gets a copy, and whether that crowds a node.
    fn copy_for(&self, to: usize) -> Option<(usize, bool)> {
        let from = self.busiest();
        let limit = self.load(from) * (1.0 - SMALLEST);
        let mut best: Option<((bool, u8, usize, f64), usize)> = None;
        for expert in (0..self.experts()).filter(|&expert| !self.holds(to, expert)) {
            let (copies, part) = (self.copies(expert), self.part(expert));
            let part_after = part * copies as f64 / (copies + 1) as f64;
            let after = self.load(to) + part_after;
            let relieved = self.load(from) - (part - part_after);
            let (class, few, harm) = match after < limit {
                true if part > 0.0 && !self.terms.uncounted && self.holds(from, expert) => {
                    (0, 0, after.max(relieved))
                }
                true => (1, copies, after),
                false => (2, 0, after),
            };
            // Whether it crowds is found out last, because that takes longest.
            if best.is_some_and(|(other, _)| !less((false, class, few, harm), other)) {
                continue;
            }
            let crowds = self.spread && self.crowding(&Move::copy(expert, to)) > 0;
            let key = (crowds, class, few, harm);
            if best.is_none_or(|(other, _)| less(key, other)) {
                best = Some((key, expert));
            }
        }
        best.map(|((crowds, ..), expert)| (expert, crowds))
    }
}

fn less((a, b, c, load): (bool, u8, usize, f64), other: (bool, u8, usize, f64)) -> bool {
    (a, b, c).cmp(&(other.0, other.1, other.2)).then(load.total_cmp(&other.3)) == Ordering::Less
}

/// The best step so far: of those that crowd copies least, the one whose ranks are least busy afterwards, the first of
/// several.
struct Best<'a, 'b> {
    layer: &'a Layer<'b>,
    step: Option<Move>,
    crowding: isize,
    /// Loads must be below it.
    bound: f64,
    may_crowd: bool,
}

impl<'a, 'b> Best<'a, 'b> {
    /// Something has to be done.
    fn new(layer: &'a Layer<'b>) -> Self {
        Best { layer, step: None, crowding: isize::MAX, bound: f64::INFINITY, may_crowd: true }
    }

    /// Only what crowds nothing and leaves the ranks that it changes less busy than `bound`.
    fn below(layer: &'a Layer<'b>, bound: f64) -> Self {
        Best { layer, step: None, crowding: 0, bound, may_crowd: false }
    }

    fn offer(&mut self, step: Move) {
        let after = self.layer.busiest_after(&step);
        if after >= self.bound && !self.may_crowd {
            return;
        }
        let crowding = match (self.layer.spread, self.may_crowd) {
            (false, _) => 0,
            (true, true) => self.layer.crowding(&step),
            (true, false) => self.layer.crowding(&step).max(0),
        };
        if crowding < self.crowding || crowding == self.crowding && after < self.bound {
            *self = Best { step: Some(step), crowding, bound: after, ..*self };
        }
    }
}
