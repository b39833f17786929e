//! Placement: which rank holds which experts. Pure, and the same input gives the same map.
//!
//! ```text
//! tokens, ranks ─shares→ slots of each rank ─fresh→ the best arrangement of each layer ┐
//! current map ──carried→ what can stay ─────steps→ a walk to something better ─────────┴─choose→ next map
//! ```
//!
//! Hot experts are replicated, slots are packed onto ranks by load, copies of an expert are on different ranks always
//! and on different nodes where there are several, and as little as possible moves. Why so, and what it does not do:
//! `docs/design/016-placement.md`.

mod carried;
mod choose;
mod dice;
pub mod eplb;
mod figures;
mod fresh;
mod labels;
mod layer;
mod moves;
mod rank_sets;
mod shares;
mod steps;
mod terms;
mod worth;

#[cfg(test)]
mod tests;

pub use figures::{Figures, balance};
pub use worth::{Moving, Window, Worth, worth};

use carried::Carried;
use choose::Candidates;
use coterie_api::expert_map::{EXPERTS_LIMIT, ExpertMap, LAYERS_LIMIT, NoMap, RANKS_LIMIT};
use layer::Layer;
use terms::Terms;
use thiserror::Error;

/// What a placement is made from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// `[layer][expert]`: tokens that were sent to each expert. A layer without any counts as evenly used.
    pub tokens: &'a [Vec<u64>],
    /// The ranks in order. One that must not hold experts has no slots.
    pub ranks: &'a [Rank],
    /// Slots of each layer beyond one for every expert, all ranks together. Fewer are used where memory is short and where
    /// every rank has every expert, and nowhere else.
    pub redundant: usize,
    /// Groups of experts that the model's gate knows; 1 if it knows none.
    pub groups: usize,
    /// The map that is in use. Ranks keep their numbers: if it has more than `ranks`, the last ones are gone.
    pub current: Option<&'a ExpertMap>,
    /// Most slots that may be loaded to get from the current map to the next. What has to be loaded so that every
    /// expert is somewhere, every copy that is asked for is made, and no rank has more than its memory holds, is loaded in
    /// any case.
    pub budget: Option<usize>,
    /// `[layer]`: which experts the same tokens need, where that is known.
    pub together: Option<&'a [Vec<Together>]>,
}

/// A rank that experts can be placed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Its node; any number that says which ranks share one.
    pub node: usize,
    /// Slots that its memory has room for, all layers together.
    pub slots: usize,
}

/// Two experts of a layer, and how many tokens needed both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Together {
    /// The two.
    pub experts: [u16; 2],
    /// Tokens.
    pub tokens: u64,
}

/// The next map, and what it changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// The next map; the current one, with its version, if nothing is better.
    pub map: ExpertMap,
    /// What the current map makes of these tokens.
    pub before: Option<Figures>,
    /// What the next one does.
    pub after: Figures,
    /// What ranks have to load, by layer and rank.
    pub loads: Vec<Load>,
    /// How many of these could not wait: without them an expert would be nowhere, a copy that is asked for would be
    /// missing, or a rank over its memory.
    pub forced: usize,
    /// A difference of balance as small as this can come about by chance, for as many tokens as were counted.
    pub chance: f64,
}

/// An expert that a rank has to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Of the model's layers with experts.
    pub layer: usize,
    /// Where.
    pub rank: usize,
    /// Which.
    pub expert: u16,
}

/// Why there is no placement.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unplaceable {
    /// Memory for fewer slots than there are experts.
    #[error(
        "{layers} layers of {experts} experts need {needed} slots, and the {ranks} ranks have memory for {free}; add \
         ranks, give them more memory, or choose a quantization with smaller experts"
    )]
    TooFewSlots {
        /// Layers with experts.
        layers: usize,
        /// Experts of a layer.
        experts: usize,
        /// Slots for one of each.
        needed: usize,
        /// Slots that there are.
        free: usize,
        /// Ranks.
        ranks: usize,
    },
    /// Counts of another model, or of several.
    #[error(
        "tokens were counted for {found} experts in layer {layer} and for {expected} in the first; counts of different \
         models are mixed, so begin to count anew"
    )]
    Ragged {
        /// Number of the layer.
        layer: usize,
        /// Its experts.
        found: usize,
        /// Those of the first layer.
        expected: usize,
    },
    /// The current map is of another model.
    #[error(
        "the current expert map has {map_layers} layers of {map_experts} experts, and tokens were counted for {layers} of \
         {experts}; place without the map if the model changed"
    )]
    OtherModel {
        /// Layers of the map.
        map_layers: usize,
        /// Experts of a layer of the map.
        map_experts: usize,
        /// Layers that were counted.
        layers: usize,
        /// Experts that were counted.
        experts: usize,
    },
    /// A pair of experts or its layer does not exist.
    #[error(
        "co-activation names experts {a} and {b} of layer {layer}, and there are {layers} layers of {experts}; leave it \
         out, or count it anew"
    )]
    UnknownPair {
        /// Number of the layer.
        layer: usize,
        /// One expert.
        a: u16,
        /// The other.
        b: u16,
        /// Layers that there are.
        layers: usize,
        /// Experts of a layer.
        experts: usize,
    },
    /// More of something than a map may have, or nothing.
    #[error(transparent)]
    NoMap(#[from] NoMap),
}

/// The next expert map.
pub fn place(input: &Input) -> Result<Placement, Unplaceable> {
    let (layers, experts) = size(input)?;
    let shares = shares::shares(input.ranks, layers, experts, input.redundant)?;
    let nodes = figures::nodes(input.ranks, input.ranks.len());
    let terms: Vec<Terms> =
        input.tokens.iter().zip(&shares).map(|(tokens, shares)| Terms::new(tokens, &nodes, shares)).collect();
    let (held, forced) = match input.current {
        Some(current) => moved(input, current, &terms),
        None => (first(input, &terms), layers * experts),
    };
    let version = input.current.map_or(0, ExpertMap::version);
    let same = ExpertMap::new(version, experts, held)?;
    let is_same = input.current == Some(&same);
    let map = if is_same { same } else { same.with_version(version.saturating_add(1))? };
    Ok(Placement {
        before: input.current.map(|current| Figures::of(current, input)),
        after: Figures::of(&map, input),
        loads: loads(&map, input.current),
        forced,
        chance: figures::chance(input),
        map,
    })
}

/// How many slots beyond one for each expert, all layers together, every map of these ranks has: `redundant` for each
/// layer, fewer where memory is short and where every rank has every expert.
pub fn possible_copies(
    ranks: &[Rank],
    layers: usize,
    experts: usize,
    redundant: usize,
) -> Result<usize, Unplaceable> {
    let shares = shares::shares(ranks, layers, experts, redundant)?;
    Ok(shares.iter().flatten().sum::<usize>() - layers * experts)
}

/// Layers, and experts of a layer.
fn size(input: &Input) -> Result<(usize, usize), Unplaceable> {
    let layers = input.tokens.len();
    let experts = input.tokens.first().map_or(0, Vec::len);
    for (what, count, limit) in [
        ("layers", layers, LAYERS_LIMIT),
        ("experts", experts, EXPERTS_LIMIT),
        ("ranks", input.ranks.len(), RANKS_LIMIT),
    ] {
        if !(1..=limit).contains(&count) {
            return Err(NoMap::Count { what, count, limit }.into());
        }
    }
    if let Some(layer) = input.tokens.iter().position(|tokens| tokens.len() != experts) {
        return Err(Unplaceable::Ragged { layer, found: input.tokens[layer].len(), expected: experts });
    }
    if let Some(map) = input.current.filter(|map| (map.layers(), map.experts()) != (layers, experts)) {
        let (map_layers, map_experts) = (map.layers(), map.experts());
        return Err(Unplaceable::OtherModel { map_layers, map_experts, layers, experts });
    }
    for (layer, pairs) in input.together.unwrap_or_default().iter().enumerate() {
        let unknown = |expert: u16| layer >= layers || usize::from(expert) >= experts;
        if let Some(pair) = pairs.iter().find(|pair| pair.experts.into_iter().any(unknown)) {
            let [a, b] = pair.experts;
            return Err(Unplaceable::UnknownPair { layer, a, b, layers, experts });
        }
    }
    Ok((layers, experts))
}

/// A layer's pairs of experts.
fn pairs<'a>(input: &Input<'a>, layer: usize) -> Option<&'a [Together]> {
    input.together?.get(layer).map(Vec::as_slice)
}

/// Each layer as well as can be: there is nothing to keep.
fn first(input: &Input, terms: &[Terms]) -> Vec<Vec<Vec<u16>>> {
    let arranged = terms.iter().enumerate().map(|(number, terms)| {
        let mut layer = fresh::arrange(terms, input.groups, number as u64, fresh::shakes(terms));
        labels::relabel(&mut layer, None, pairs(input, number));
        layer.settle();
        layer.into_held()
    });
    arranged.collect()
}

/// Each layer better than it is, as far as that is possible and the budget goes; and the loads that could not wait.
fn moved(input: &Input, current: &ExpertMap, terms: &[Terms]) -> (Vec<Vec<Vec<u16>>>, usize) {
    let holdable = carried::holdable(current, input.ranks, terms);
    let mut layers = Vec::with_capacity(terms.len());
    for (number, terms) in terms.iter().enumerate() {
        let now: Vec<Vec<u16>> =
            (0..input.ranks.len()).map(|rank| current.held(number, rank).to_vec()).collect();
        let arrange = || fresh::arrange(terms, input.groups, number as u64, fresh::shakes(terms));
        let mut fresh: Option<Layer> = (!terms.uncounted).then(arrange);
        if let Some(fresh) = &mut fresh {
            labels::relabel(fresh, Some(&now), pairs(input, number));
            // On other nodes there may be other steps.
            fresh.settle();
        }
        layers.push(Carried::new(terms, now, &holdable[number], fresh));
    }
    let candidates: Vec<Candidates> = layers.iter().map(Carried::candidates).collect();
    let chosen = choose::choose(&candidates, input.budget);
    let forced = layers.iter().map(Carried::forced).sum();
    let held = layers.into_iter().zip(&candidates).zip(chosen);
    let held = held.map(|((layer, candidates), number)| layer.take(number, candidates));
    (held.collect(), forced)
}

/// What `map` has on a rank and `current` has not.
fn loads(map: &ExpertMap, current: Option<&ExpertMap>) -> Vec<Load> {
    let mut loads = Vec::new();
    for layer in 0..map.layers() {
        for rank in 0..map.ranks() {
            let is_new = |expert: &u16| {
                !current.is_some_and(|current| current.holds(layer, rank, usize::from(*expert)))
            };
            let new = map.held(layer, rank).iter().copied().filter(is_new);
            loads.extend(new.map(|expert| Load { layer, rank, expert }));
        }
    }
    loads
}
