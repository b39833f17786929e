//! Which rank gets which pack of experts, once the packs are made: the ranks' loads stay what they are, whoever has them.
//!
//! First copies are parted over nodes, then as much as possible stays where it is, then experts that the same tokens
//! need come to one node.

use super::Together;
use super::layer::Layer;
use super::terms::SMALLEST;

/// What is held now, `[rank]`: experts in order.
type Held<'a> = &'a [Vec<u16>];

/// Exchanges whole packs between ranks for as long as that helps. A pack only comes to a rank whose share it fits.
pub(super) fn relabel(layer: &mut Layer, now: Option<Held>, together: Option<&[Together]>) {
    let crowded = layer.crowded();
    if crowded == 0 && now.is_none() && together.is_none() {
        return;
    }
    let mut packs = Packs {
        crowded: crowded as isize,
        kept: now.map(|now| kept(layer, now)),
        joint: together.filter(|_| layer.terms.node_count > 1).map(|pairs| joint(layer, pairs)),
        of: (0..layer.ranks()).collect(),
        layer,
    };
    if packs.kept.is_some() && packs.layer.terms.node_count == 1 {
        packs.keep_most();
    }
    while packs.pass() {}
}

/// Packs on their way to ranks.
struct Packs<'a, 'b> {
    layer: &'a mut Layer<'b>,
    /// [`Layer::crowded`].
    crowded: isize,
    /// `[rank]`: the number of its pack.
    of: Vec<usize>,
    /// `[pack][rank]`: experts of the pack that the rank holds now.
    kept: Option<Vec<Vec<usize>>>,
    /// `[pack][pack]`: how often a token needs an expert of both.
    joint: Option<Vec<Vec<f64>>>,
}

impl Packs<'_, '_> {
    /// The pairs of a pack and a rank in the order of what they have in common, as a start.
    fn keep_most(&mut self) {
        let Some(kept) = &self.kept else { return };
        let ranks = self.of.len();
        let mut pairs: Vec<(usize, usize)> = (0..ranks * ranks).map(|at| (at / ranks, at % ranks)).collect();
        pairs.sort_by_key(|&(pack, rank)| std::cmp::Reverse(kept[pack][rank]));
        let mut done = vec![false; ranks];
        for (pack, rank) in pairs {
            let Some(from) = self.of.iter().position(|&other| other == pack) else { continue };
            if !done[rank] && (from == rank || !done[from]) && self.fit(from, rank) {
                done[rank] = true;
                self.exchange(from, rank);
            }
        }
    }

    /// Tries all pairs of ranks; whether something was exchanged.
    fn pass(&mut self) -> bool {
        let mut changed = false;
        for one in 0..self.of.len() {
            for other in one + 1..self.of.len() {
                if self.fit(one, other) && self.is_better_exchanged(one, other) {
                    self.exchange(one, other);
                    changed = true;
                }
            }
        }
        changed
    }

    fn exchange(&mut self, one: usize, other: usize) {
        if one != other {
            self.crowded += self.crowding(one, other);
            self.layer.exchange(one, other);
            self.of.swap(one, other);
        }
    }

    fn fit(&self, one: usize, other: usize) -> bool {
        let fits = |from: usize, to: usize| self.layer.slots(from) <= self.layer.terms.shares[to];
        fits(one, other) && fits(other, one)
    }

    fn is_better_exchanged(&self, one: usize, other: usize) -> bool {
        let keeps = self.keeps_more(one, other);
        let is_better = keeps > 0 || keeps == 0 && self.joins_more(one, other);
        if self.crowded == 0 && !is_better {
            return false;
        }
        let crowding = self.crowding(one, other);
        crowding < 0 || crowding == 0 && is_better
    }

    /// By how many experts more would stay where they are.
    fn keeps_more(&self, one: usize, other: usize) -> isize {
        let Some(kept) = &self.kept else { return 0 };
        let (a, b) = (&kept[self.of[one]], &kept[self.of[other]]);
        (a[other] + b[one]) as isize - (a[one] + b[other]) as isize
    }

    /// Whether more pairs would be on one node.
    fn joins_more(&self, one: usize, other: usize) -> bool {
        let nodes = self.layer.terms.nodes;
        let Some(joint) = self.joint.as_ref().filter(|_| nodes[one] != nodes[other]) else { return false };
        let (a, b) = (&joint[self.of[one]], &joint[self.of[other]]);
        let (mut gain, mut size) = (0.0, 0.0);
        for (rank, &pack) in self.of.iter().enumerate().filter(|(rank, _)| *rank != one && *rank != other) {
            let there = f64::from(nodes[rank] == nodes[other]) - f64::from(nodes[rank] == nodes[one]);
            gain += there * (a[pack] - b[pack]);
            size += a[pack] + b[pack];
        }
        gain > size * SMALLEST
    }

    /// By how much more copies share nodes if two ranks exchange their packs.
    fn crowding(&self, one: usize, other: usize) -> isize {
        if self.layer.terms.nodes[one] == self.layer.terms.nodes[other] {
            return 0;
        }
        let goes = |from: usize, to: usize| -> isize {
            let moves =
                self.layer.held(from).filter(|&e| self.layer.copies(e) > 1 && !self.layer.holds(to, e));
            let change = |expert| {
                let after = self.layer.crowd(expert, Some(from), Some(to));
                after as isize - self.layer.crowd(expert, None, None) as isize
            };
            moves.map(change).sum()
        };
        goes(one, other) + goes(other, one)
    }
}

fn kept(layer: &Layer, now: Held) -> Vec<Vec<usize>> {
    let mut kept = vec![vec![0; layer.ranks()]; layer.ranks()];
    for (rank, held) in now.iter().enumerate().take(layer.ranks()) {
        for &expert in held {
            layer.holders(usize::from(expert)).for_each(|pack| kept[pack][rank] += 1);
        }
    }
    kept
}

fn joint(layer: &Layer, pairs: &[Together]) -> Vec<Vec<f64>> {
    let mut joint = vec![vec![0.0; layer.ranks()]; layer.ranks()];
    for pair in pairs {
        let (a, b) = (usize::from(pair.experts[0]), usize::from(pair.experts[1]));
        let tokens = pair.tokens as f64 / (layer.copies(a) * layer.copies(b)) as f64;
        for one in layer.holders(a) {
            for other in layer.holders(b) {
                joint[one][other] += tokens;
                joint[other][one] += tokens;
            }
        }
    }
    joint
}
