//! Which of its arrangements each layer gets: the best, if all of it may be loaded; otherwise what gains most for each
//! slot that is loaded.

use std::cmp::Ordering;

/// A map this much worse than the best that was found counts as equally good, and then the one with fewer loads is taken.
const EQUALLY_GOOD: f64 = 1.01;

/// An arrangement that a layer could have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Slots to load for it.
    pub loads: usize,
    /// [`Layer::score`](super::layer::Layer::score): less is better.
    pub score: f64,
    /// [`Layer::missing`](super::layer::Layer::missing): what lacks a copy that is asked for is only passed.
    pub missing: usize,
}

/// All that a layer could have.
#[derive(Debug)]
pub(super) struct Candidates {
    /// The first is what it has, as far as it can stay; each further one is a step from the one before.
    pub walk: Vec<Candidate>,
    /// The best that was found without regard to what it has.
    pub fresh: Option<Candidate>,
}

impl Candidates {
    /// What may be chosen. Number [`walk`](Self::walk)'s length is the fresh one.
    fn all(&self) -> impl Iterator<Item = (usize, &Candidate)> {
        self.walk.iter().chain(&self.fresh).enumerate().filter(|(_, candidate)| candidate.missing == 0)
    }
}

/// For each layer the number of a candidate, of which one behind the walk is the fresh one.
pub(super) fn choose(layers: &[Candidates], budget: Option<usize>) -> Vec<usize> {
    let wanted: Vec<usize> = layers.iter().map(best).collect();
    let loads = |(layer, &number): (&Candidates, &usize)| candidate(layer, number).loads;
    match budget {
        Some(budget) if layers.iter().zip(&wanted).map(loads).sum::<usize>() > budget => {
            affordable(layers, &wanted, budget)
        }
        _ => wanted,
    }
}

fn candidate(layer: &Candidates, number: usize) -> &Candidate {
    layer.walk.get(number).or(layer.fresh.as_ref()).unwrap_or(&layer.walk[0])
}

/// Of what the walk passes and is as good as the best: what loads fewest. The fresh one only if the walk passes nothing as
/// good.
fn best(layer: &Candidates) -> usize {
    let ends = layer.walk.last().into_iter().chain(&layer.fresh);
    let limit = ends.map(|end| end.score).fold(f64::INFINITY, f64::min) * EQUALLY_GOOD;
    let walk = layer.all().filter(|(number, _)| *number < layer.walk.len());
    let good = walk.filter(|(_, candidate)| candidate.score <= limit);
    good.min_by(|(_, one), (_, other)| order(one, other)).map_or(layer.walk.len(), |(number, _)| number)
}

/// From what can stay, again and again the change that gains most for each slot that it loads.
fn affordable(layers: &[Candidates], wanted: &[usize], budget: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = layers.iter().map(cheapest).collect();
    let spent: usize =
        layers.iter().zip(&chosen).map(|(layer, &number)| candidate(layer, number).loads).sum();
    let mut left = budget.saturating_sub(spent);
    loop {
        let mut best: Option<(f64, usize, usize)> = None;
        for (at, layer) in layers.iter().enumerate() {
            let (now, most) = (candidate(layer, chosen[at]), candidate(layer, wanted[at]).loads);
            for (number, then) in layer.all() {
                let affordable =
                    then.loads > now.loads && then.loads <= most && then.loads - now.loads <= left;
                let gain = (now.score - then.score) / then.loads.saturating_sub(now.loads).max(1) as f64;
                if affordable && gain > 0.0 && best.is_none_or(|(most, ..)| gain > most) {
                    best = Some((gain, at, number));
                }
            }
        }
        let Some((_, at, number)) = best else { return chosen };
        left -= candidate(&layers[at], number).loads - candidate(&layers[at], chosen[at]).loads;
        chosen[at] = number;
    }
}

/// The fewest loads, and of those the best.
fn cheapest(layer: &Candidates) -> usize {
    layer.all().min_by(|(_, one), (_, other)| order(one, other)).map_or(0, |(number, _)| number)
}

fn order(one: &Candidate, other: &Candidate) -> Ordering {
    one.loads.cmp(&other.loads).then(one.score.total_cmp(&other.score))
}
