//! The best arrangement of a layer that the search finds, whatever is held now.
//!
//! Two starts, a greedy one and EPLB's answer, are improved step by step; the better one is then shaken and improved
//! again, for as long as the effort lasts. The same terms give the same arrangement.

use super::dice::Dice;
use super::eplb;
use super::labels;
use super::layer::Layer;
use super::moves::Move;
use super::terms::{SMALL, SMALLEST, Terms};

/// What is at most so much worse than the best is gone on from.
const NEARLY: f64 = 1.05;

/// How often a layer is shaken: small ones have so few arrangements that this finds the best, nearly always; in large
/// ones it takes long and gains nothing that anybody would notice.
pub(super) fn shakes(terms: &Terms) -> usize {
    if terms.slots() > SMALL { 0 } else { (80_000 / (terms.slots() * terms.shares.len()).max(1)).min(4000) }
}

/// Arranges a layer from nothing. Copies of an expert are on different nodes ([`Layer::spread`] says so in the answer),
/// unless that would make the busiest rank busier than EPLB's: then nodes do not count.
pub(super) fn arrange<'a>(terms: &'a Terms<'a>, groups: usize, seed: u64, shakes: usize) -> Layer<'a> {
    let mut dice = Dice::new(seed);
    let mut start = greedy(terms);
    let Some(reference) = reference(terms, groups) else {
        return searched(start, None, shakes, &mut dice);
    };
    start.enough = start.enough.min(busiest(&reference));
    let limit = busiest(&reference) * (1.0 + SMALLEST);
    let other = (terms.node_count == 1).then(|| reference.clone());
    let best = searched(start, other, shakes, &mut dice);
    if busiest(&best) <= limit {
        return best;
    }
    let mut best = searched(reference, None, shakes, &mut dice);
    labels::relabel(&mut best, None, None);
    best
}

fn busiest(layer: &Layer) -> f64 {
    layer.load(layer.busiest())
}

/// The better of EPLB's two answers, where it has one; of two copies on one rank one is left, and other copies are made for
/// the rest.
fn reference<'a>(terms: &'a Terms<'a>, groups: usize) -> Option<Layer<'a>> {
    let (ranks, each) = (terms.shares.len(), terms.shares[0]);
    if terms.shares.iter().any(|share| *share != each) {
        return None;
    }
    let tokens: Vec<f32> = terms.tokens.iter().map(|&tokens| tokens as f32).collect();
    let in_order = terms.nodes.is_sorted()
        && terms.nodes.chunk_by(|a, b| a == b).all(|node| node.len() == terms.nodes.len() / terms.node_count);
    let mut policies = vec![(1, 1)];
    if in_order && terms.node_count > 1 {
        policies.push((groups, terms.node_count));
    }
    let answers = policies.into_iter().filter_map(|(groups, nodes)| {
        let placed = eplb::place(&tokens, each * ranks, groups, nodes, ranks)?;
        let mut layer = Layer::empty(terms);
        layer.spread = false;
        for (rank, held) in placed.chunks(each).enumerate() {
            for &expert in held {
                let expert = usize::from(expert);
                if !layer.holds(rank, expert) {
                    layer.put(expert, rank);
                }
            }
        }
        layer.complete();
        Some(layer)
    });
    answers.min_by(|a, b| busiest(a).total_cmp(&busiest(b)))
}

/// EPLB's two greedy steps with our rules: never more copies than ranks, no two on one rank, different nodes first.
fn greedy<'a>(terms: &'a Terms<'a>) -> Layer<'a> {
    let mut layer = Layer::empty(terms);
    let mut copies = vec![1; layer.experts()];
    let part = |expert: usize, copies: &[usize]| terms.tokens[expert] / copies[expert] as f64;
    for _ in layer.experts()..terms.slots() {
        let may = (0..layer.experts()).filter(|&expert| copies[expert] < layer.ranks());
        // The first of several that have most.
        let most = may
            .reduce(|most, expert| if part(expert, &copies) > part(most, &copies) { expert } else { most });
        let Some(most) = most else { break };
        copies[most] += 1;
    }

    let mut order: Vec<usize> = (0..layer.experts()).collect();
    order.sort_by(|&a, &b| part(b, &copies).total_cmp(&part(a, &copies)));
    let mut load = vec![0.0_f64; layer.ranks()];
    for expert in order {
        for _ in 0..copies[expert] {
            let may = (0..layer.ranks()).filter(|&rank| layer.has_room(rank) && !layer.holds(rank, expert));
            let crowd =
                |rank: usize| if copies[expert] == 1 { 0 } else { layer.crowd(expert, None, Some(rank)) };
            let order = |&a: &usize, &b: &usize| crowd(a).cmp(&crowd(b)).then(load[a].total_cmp(&load[b]));
            let best = may.min_by(order);
            // A first copy always finds a slot, a further one only if a rank without one has room.
            if let Some(rank) = best {
                load[rank] += part(expert, &copies);
                layer.put(expert, rank);
            }
        }
    }
    layer
}

/// Improves each start, then shakes the best and improves it again.
fn searched<'a>(start: Layer<'a>, other: Option<Layer<'a>>, shakes: usize, dice: &mut Dice) -> Layer<'a> {
    let mut best = settled(start);
    if let Some(other) = other.map(settled).filter(|other| is_better(other, &best)) {
        best = other;
    }
    let (mut at, mut trial) = (best.clone(), best.clone());
    for _ in 0..shakes {
        if busiest(&best) <= best.enough {
            break;
        }
        trial.become_as(&at);
        shake(&mut trial, dice);
        trial.settle();
        if is_better(&trial, &best) {
            best.become_as(&trial);
        }
        // A little worse is gone on from: many arrangements are nearly as good, and only some have a way on.
        if busiest(&trial) <= busiest(&best) * NEARLY {
            at.become_as(&trial);
        }
    }
    best
}

fn settled(mut layer: Layer) -> Layer {
    layer.settle();
    layer
}

/// Less busy, by more than rounding.
fn is_better(one: &Layer, other: &Layer) -> bool {
    let (load, others) = (busiest(one), busiest(other));
    load < others - others * SMALLEST
}

/// A few random moves, most of them at the busiest rank; sometimes so many that nothing is left of what was.
fn shake(layer: &mut Layer, dice: &mut Dice) {
    let moves = if dice.below(3) == 0 { 2 * layer.terms.slots() } else { 1 + dice.below(4) };
    for _ in 0..moves {
        let one = if dice.below(2) == 0 { layer.busiest() } else { dice.below(layer.ranks()) };
        let other = dice.below(layer.ranks());
        let step = match dice.below(3) {
            0 => random_swap(layer, one, other, dice),
            1 => random_copy(layer, one, other, dice),
            _ => random_drop(layer, one, dice),
        };
        if let Some(step) = step {
            layer.apply(&step);
        }
    }
}

fn random_swap(layer: &Layer, one: usize, other: usize, dice: &mut Dice) -> Option<Move> {
    let here = pick(layer.held(one).filter(|&expert| !layer.holds(other, expert)), dice)?;
    let there = pick(layer.held(other).filter(|&expert| !layer.holds(one, expert)), dice)?;
    Some(Move::swap(here, one, there, other))
}

/// A copy of something from `from` comes to `to`, into an empty slot or in place of another copy.
fn random_copy(layer: &Layer, from: usize, to: usize, dice: &mut Dice) -> Option<Move> {
    let expert = pick(layer.held(from).filter(|&expert| !layer.holds(to, expert)), dice)?;
    if layer.has_room(to) {
        return Some(Move::copy(expert, to));
    }
    let other = pick(layer.held(to).filter(|&other| layer.copies(other) > 1), dice)?;
    Some(Move::copy(expert, to).instead_of(other, to))
}

fn random_drop(layer: &Layer, from: usize, dice: &mut Dice) -> Option<Move> {
    let expert = pick(layer.held(from).filter(|&expert| layer.copies(expert) > 1), dice)?;
    Some(Move::drop(expert, from))
}

/// One of several with equal chances.
fn pick(from: impl Iterator<Item = usize>, dice: &mut Dice) -> Option<usize> {
    let mut picked = None;
    for (seen, item) in from.enumerate() {
        if dice.below(seen + 1) == 0 {
            picked = Some(item);
        }
    }
    picked
}
