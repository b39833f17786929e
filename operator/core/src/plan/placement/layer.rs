//! One layer while it is arranged: which rank holds which experts, and what that makes of the ranks' loads.
//!
//! The load of a copy is its expert's tokens divided by the copies. Loads are added up anew, in the order of experts,
//! whenever a rank changes: they depend on what is held, not on how it came about.

use super::moves::{Change, Move};
use super::rank_sets::RankSets;
use super::terms::Terms;
use coterie_api::expert_map::RANKS_LIMIT;

/// Experts on ranks. Never twice on one rank.
#[derive(Clone, Debug)]
pub(super) struct Layer<'a> {
    pub terms: &'a Terms<'a>,
    /// Whether copies of an expert must be on different nodes, as far as there are nodes.
    pub spread: bool,
    /// A load of the busiest rank that is low enough: below it nothing is improved.
    pub enough: f64,
    /// `[rank]`: experts in order.
    held: Vec<Vec<u16>>,
    on: RankSets,
    copies: Vec<usize>,
    /// `[expert]`: tokens of one copy.
    part: Vec<f64>,
    /// `[rank]`: tokens.
    load: Vec<f64>,
}

impl<'a> Layer<'a> {
    /// Nothing is held yet.
    pub(super) fn empty(terms: &'a Terms<'a>) -> Layer<'a> {
        let (experts, ranks) = (terms.tokens.len(), terms.nodes.len());
        Layer {
            terms,
            spread: true,
            enough: terms.enough(),
            held: vec![Vec::new(); ranks],
            on: RankSets::new(experts, ranks),
            copies: vec![0; experts],
            part: terms.tokens.clone(),
            load: vec![0.0; ranks],
        }
    }

    pub(super) fn ranks(&self) -> usize {
        self.held.len()
    }

    pub(super) fn experts(&self) -> usize {
        self.copies.len()
    }

    pub(super) fn held(&self, rank: usize) -> impl Iterator<Item = usize> + '_ {
        self.held[rank].iter().map(|&expert| usize::from(expert))
    }

    pub(super) fn holds(&self, rank: usize, expert: usize) -> bool {
        self.on.contains(expert, rank)
    }

    pub(super) fn holders(&self, expert: usize) -> impl Iterator<Item = usize> + '_ {
        self.on.of(expert)
    }

    pub(super) fn copies(&self, expert: usize) -> usize {
        self.copies[expert]
    }

    /// Tokens of one copy; of a first one, if there is none.
    pub(super) fn part(&self, expert: usize) -> f64 {
        self.part[expert]
    }

    pub(super) fn load(&self, rank: usize) -> f64 {
        self.load[rank]
    }

    pub(super) fn slots(&self, rank: usize) -> usize {
        self.held[rank].len()
    }

    /// Whether the rank holds fewer slots than its share.
    pub(super) fn has_room(&self, rank: usize) -> bool {
        self.slots(rank) < self.terms.shares[rank]
    }

    /// The rank with most load, the first of several.
    pub(super) fn busiest(&self) -> usize {
        (1..self.ranks()).fold(0, |most, rank| if self.load[rank] > self.load[most] { rank } else { most })
    }

    /// Slots beyond ranks' shares.
    pub(super) fn excess(&self) -> usize {
        (0..self.ranks()).map(|rank| self.slots(rank).saturating_sub(self.terms.shares[rank])).sum()
    }

    /// Copies that are asked for and that nobody holds.
    pub(super) fn missing(&self) -> usize {
        self.terms.slots().saturating_sub(self.all_slots())
    }

    /// Copies that are held and that nobody asked for.
    pub(super) fn beyond(&self) -> usize {
        self.all_slots().saturating_sub(self.terms.slots())
    }

    fn all_slots(&self) -> usize {
        (0..self.ranks()).map(|rank| self.slots(rank)).sum()
    }

    /// Copies that share a node although there is one without, all experts together.
    pub(super) fn crowded(&self) -> usize {
        (0..self.experts()).map(|expert| self.crowd(expert, None, None)).sum()
    }

    /// Copies of `expert` that share a node although there is one without, were it to leave `from` and come to `to`.
    pub(super) fn crowd(&self, expert: usize, from: Option<usize>, to: Option<usize>) -> usize {
        let copies = self.copies[expert] + usize::from(to.is_some()) - usize::from(from.is_some());
        if self.terms.node_count == 1 || copies < 2 {
            return 0;
        }
        let mut nodes = [0_u64; RANKS_LIMIT.div_ceil(64)];
        for rank in self.holders(expert).filter(|&rank| Some(rank) != from).chain(to) {
            let node = self.terms.nodes[rank];
            nodes[node / 64] |= 1 << (node % 64);
        }
        let words = &nodes[..self.terms.node_count.div_ceil(64)];
        let different: u32 = words.iter().map(|word| word.count_ones()).sum();
        copies.min(self.terms.node_count) - different as usize
    }

    /// By how much a move changes [`crowded`](Self::crowded).
    pub(super) fn crowding(&self, step: &Move) -> isize {
        let change = |change: Change| {
            let after = self.crowd(change.expert, change.from, change.to);
            after as isize - self.crowd(change.expert, None, None) as isize
        };
        step.changes().map(change).sum()
    }

    /// Tokens of one copy of `change.expert` after it.
    fn part_after(&self, change: Change) -> f64 {
        let copies = self.copies[change.expert] + usize::from(change.to.is_some())
            - usize::from(change.from.is_some());
        self.terms.tokens[change.expert] / copies.max(1) as f64
    }

    /// The highest load, after the move, of those ranks that it changes.
    pub(super) fn busiest_after(&self, step: &Move) -> f64 {
        let first = (step.first, self.part_after(step.first));
        let second = step.second.map(|second| (second, self.part_after(second)));
        let load_after = |rank: usize| {
            let mut load = self.load[rank];
            for (change, part) in std::iter::once(first).chain(second) {
                let had = self.holds(rank, change.expert);
                if had {
                    load -= self.part[change.expert];
                }
                if change.to == Some(rank) || had && change.from != Some(rank) {
                    load += part;
                }
            }
            load
        };
        let mut most = 0.0_f64;
        for change in step.changes() {
            for rank in change.from.into_iter().chain(change.to) {
                most = most.max(load_after(rank));
            }
            if change.from.is_some() != change.to.is_some() {
                for rank in self.holders(change.expert) {
                    most = most.max(load_after(rank));
                }
            }
        }
        most
    }

    pub(super) fn apply(&mut self, step: &Move) {
        for change in step.changes() {
            if let Some(rank) = change.from {
                self.take(change.expert, rank);
            }
        }
        for change in step.changes() {
            if let Some(rank) = change.to {
                self.put(change.expert, rank);
            }
        }
    }

    /// Puts a copy on a rank that has none.
    pub(super) fn put(&mut self, expert: usize, rank: usize) {
        let number = expert as u16;
        let at = self.held[rank].partition_point(|&other| other < number);
        self.held[rank].insert(at, number);
        self.on.insert(expert, rank);
        self.copies[expert] += 1;
        self.add_up(expert);
    }

    fn take(&mut self, expert: usize, rank: usize) {
        self.held[rank].retain(|&other| usize::from(other) != expert);
        self.on.remove(expert, rank);
        self.copies[expert] -= 1;
        self.add_up(expert);
        self.load[rank] = self.sum(rank);
    }

    fn add_up(&mut self, expert: usize) {
        self.part[expert] = self.terms.tokens[expert] / self.copies[expert].max(1) as f64;
        for rank in self.on.of(expert) {
            self.load[rank] = self.sum(rank);
        }
    }

    fn sum(&self, rank: usize) -> f64 {
        self.held(rank).map(|expert| self.part[expert]).sum()
    }

    /// Two ranks exchange all that they hold.
    pub(super) fn exchange(&mut self, one: usize, other: usize) {
        let only = |here: usize, there: usize| -> Vec<usize> {
            self.held(here).filter(|&expert| !self.holds(there, expert)).collect()
        };
        for (experts, from, to) in [(only(one, other), one, other), (only(other, one), other, one)] {
            for expert in experts {
                self.on.remove(expert, from);
                self.on.insert(expert, to);
            }
        }
        self.held.swap(one, other);
        self.load.swap(one, other);
    }

    /// Becomes `other`, which is of the same terms, without new memory.
    pub(super) fn become_as(&mut self, other: &Layer<'a>) {
        (self.spread, self.enough) = (other.spread, other.enough);
        self.held.clone_from(&other.held);
        self.on.become_as(&other.on);
        self.copies.clone_from(&other.copies);
        self.part.clone_from(&other.part);
        self.load.clone_from(&other.load);
    }

    /// `[rank]`: experts in order.
    pub(super) fn into_held(self) -> Vec<Vec<u16>> {
        self.held
    }

    /// What is better has a lower score: the busiest rank's load, and as much as an average slot's for every slot beyond
    /// a share and every crowded copy.
    pub(super) fn score(&self) -> f64 {
        let tokens: f64 = self.terms.tokens.iter().sum();
        let average = tokens / self.terms.slots().max(1) as f64;
        let crowded = if self.spread && self.terms.node_count > 1 { self.crowded() } else { 0 };
        self.load[self.busiest()] + average * (self.excess() + crowded) as f64
    }
}
