//! What a layer is arranged for, and how good is good enough.

/// A difference of loads counts if it is larger than this share of them; the rest is rounding.
pub(super) const SMALLEST: f64 = 1e-9;

/// In a layer of more slots than [`SMALL`] nobody would notice this share of a load.
const NEGLIGIBLE: f64 = 1e-3;
/// Up to so many slots every bit counts: there the best is cheap to look for, and single experts make a difference.
pub(super) const SMALL: usize = 64;

/// What a layer is arranged for.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    /// `[expert]`: all 1 where no tokens were counted.
    pub tokens: Vec<f64>,
    /// No tokens were counted.
    pub uncounted: bool,
    /// `[rank]`: its node, counted from 0 without gaps.
    pub nodes: &'a [usize],
    /// How many nodes there are.
    pub node_count: usize,
    /// `[rank]`: slots that it should hold at most.
    pub shares: &'a [usize],
}

impl<'a> Terms<'a> {
    pub(super) fn new(tokens: &[u64], nodes: &'a [usize], shares: &'a [usize]) -> Terms<'a> {
        let uncounted = tokens.iter().all(|tokens| *tokens == 0);
        let count = |&tokens: &u64| if uncounted { 1.0 } else { tokens as f64 };
        let node_count = nodes.iter().max().map_or(1, |last| last + 1);
        Terms { tokens: tokens.iter().map(count).collect(), uncounted, nodes, node_count, shares }
    }

    /// Slots of all ranks.
    pub(super) fn slots(&self) -> usize {
        self.shares.iter().sum()
    }

    /// No arrangement has a busiest rank below it: the mean, or the busiest expert on all ranks.
    fn least_possible(&self) -> f64 {
        let ranks = self.shares.iter().filter(|share| **share > 0).count().max(1) as f64;
        let most = self.tokens.iter().copied().fold(0.0, f64::max);
        (self.tokens.iter().sum::<f64>() / ranks).max(most / ranks)
    }

    /// A load of the busiest rank that is low enough.
    pub(super) fn enough(&self) -> f64 {
        self.least_possible() * (1.0 + if self.slots() > SMALL { NEGLIGIBLE } else { SMALLEST })
    }
}
