//! What of the current map can stay, and the ways from there to something better.

use super::Rank;
use super::choose::{Candidate, Candidates};
use super::layer::Layer;
use super::moves::Move;
use super::terms::Terms;
use coterie_api::expert_map::ExpertMap;

/// A layer of the current map on its way to the next.
pub(super) struct Carried<'a> {
    /// `[rank]`: what it holds now.
    now: Vec<Vec<u16>>,
    /// The same as far as it can stay, with what must be somewhere and as many copies as are asked for.
    base: Layer<'a>,
    fresh: Option<Layer<'a>>,
}

impl<'a> Carried<'a> {
    /// `holdable` says how many slots each rank can hold while its share is not reached.
    pub(super) fn new(
        terms: &'a Terms<'a>,
        now: Vec<Vec<u16>>,
        holdable: &[usize],
        fresh: Option<Layer<'a>>,
    ) -> Carried<'a> {
        let mut base = Layer::empty(terms);
        base.spread = fresh.as_ref().is_none_or(|fresh| fresh.spread);
        for (rank, held) in now.iter().enumerate() {
            held.iter().for_each(|&expert| base.put(usize::from(expert), rank));
        }
        let mut lost: Vec<usize> = (0..base.experts()).filter(|&expert| base.copies(expert) == 0).collect();
        lost.sort_by(|&a, &b| terms.tokens[b].total_cmp(&terms.tokens[a]));
        for expert in lost {
            if let Some(step) = base.rescue(expert) {
                base.apply(&step);
            }
        }
        while let Some(step) = over_memory(&base, holdable) {
            base.apply(&step);
        }
        base.complete();
        base.trim();
        Carried { now, base, fresh }
    }

    /// Loads that cannot wait.
    pub(super) fn forced(&self) -> usize {
        self.loads(&self.base)
    }

    pub(super) fn candidates(&self) -> Candidates {
        let mut walk = vec![self.candidate(&self.base)];
        let mut layer = self.base.clone();
        while layer.step() {
            walk.push(self.candidate(&layer));
        }
        Candidates { walk, fresh: self.fresh.as_ref().map(|fresh| self.candidate(fresh)) }
    }

    /// The arrangement of one of the [`candidates`](Self::candidates).
    pub(super) fn take(self, number: usize, candidates: &Candidates) -> Vec<Vec<u16>> {
        match self.fresh {
            Some(fresh) if number == candidates.walk.len() => fresh.into_held(),
            _ => {
                let mut layer = self.base;
                // The same steps as the first time.
                for _ in 0..number {
                    layer.step();
                }
                layer.into_held()
            }
        }
    }

    fn candidate(&self, layer: &Layer) -> Candidate {
        Candidate { loads: self.loads(layer), score: layer.score(), missing: layer.missing() }
    }

    fn loads(&self, layer: &Layer) -> usize {
        let kept = |(rank, held): (usize, &Vec<u16>)| {
            held.iter().filter(|&&expert| layer.holds(rank, usize::from(expert))).count()
        };
        let slots: usize = (0..layer.ranks()).map(|rank| layer.slots(rank)).sum();
        slots - self.now.iter().enumerate().map(kept).sum::<usize>()
    }
}

/// A step that brings a rank nearer to what it can hold, or else, if such a rank cannot give, makes room elsewhere.
fn over_memory(layer: &Layer, holdable: &[usize]) -> Option<Move> {
    let mut over = (0..layer.ranks()).filter(|&rank| layer.slots(rank) > holdable[rank]).peekable();
    over.peek()?;
    over.find_map(|rank| layer.shed_from(rank)).or_else(|| layer.shed())
}

/// `[layer][rank]`: slots that a rank can hold until it has given away what is beyond its share: what it holds now, if
/// its memory has room for that beside its shares of all other layers, or else no more than its share.
pub(super) fn holdable(current: &ExpertMap, ranks: &[Rank], terms: &[Terms]) -> Vec<Vec<usize>> {
    let most = |layer: usize, rank: usize| terms[layer].shares[rank].max(current.held(layer, rank).len());
    let mut holdable: Vec<Vec<usize>> = terms.iter().map(|terms| terms.shares.to_vec()).collect();
    for (rank, limit) in ranks.iter().map(|rank| rank.slots).enumerate() {
        if (0..terms.len()).map(|layer| most(layer, rank)).sum::<usize>() <= limit {
            holdable.iter_mut().enumerate().for_each(|(layer, slots)| slots[rank] = most(layer, rank));
        }
    }
    holdable
}
