//! The busiest rank is never busier than EPLB's.

use super::super::dice::Dice;
use super::super::layer::Layer;
use super::super::terms::Terms;
use super::super::{eplb, fresh};
use super::{busiest, input, loads, placed, ranks};
use coterie_api::expert_map::ExpertMap;

fn as_f32(tokens: &[u64]) -> Vec<f32> {
    tokens.iter().map(|&tokens| tokens as f32).collect()
}

/// The load of EPLB's busiest rank as EPLB counts it: two copies on one rank both count.
fn own_count(placed: &[u16], tokens: &[u64], ranks: usize) -> f64 {
    let copies = |expert: u16| placed.iter().filter(|&&other| other == expert).count() as f64;
    let part = |&expert: &u16| tokens[usize::from(expert)] as f64 / copies(expert);
    placed.chunks(placed.len() / ranks).map(|held| held.iter().map(part).sum()).fold(0.0, f64::max)
}

/// EPLB's answer as a map that can be: of two copies on one rank one is left, and for the rest other copies are made; the
/// load of its busiest rank, and whether it had doubles.
fn possible<'a>(placed: &[u16], terms: &'a Terms<'a>) -> (f64, bool) {
    let (map, doubles) = collapsed(placed, terms.tokens.len(), terms.shares.len());
    let mut layer = Layer::empty(terms);
    layer.spread = false;
    for rank in 0..map.ranks() {
        map.held(0, rank).iter().for_each(|&expert| layer.put(usize::from(expert), rank));
    }
    layer.complete();
    (layer.load(layer.busiest()), doubles)
}

/// EPLB's answer as a map, where of two copies on one rank one is left; and whether there were any.
fn collapsed(placed: &[u16], experts: usize, ranks: usize) -> (ExpertMap, bool) {
    let unique = |held: &[u16]| {
        let mut held = held.to_vec();
        held.sort_unstable();
        held.dedup();
        held
    };
    let held: Vec<Vec<u16>> = placed.chunks(placed.len() / ranks).map(unique).collect();
    let doubles = held.iter().map(Vec::len).sum::<usize>() < placed.len();
    (ExpertMap::new(1, experts, vec![held]).unwrap(), doubles)
}

#[test]
fn the_example_of_two_hot_experts_is_solved() {
    let tokens = vec![vec![600, 560, 120, 120, 20, 10, 10, 10]];
    let reference = eplb::place(&as_f32(&tokens[0]), 16, 1, 1, 8).unwrap();
    assert_eq!(format!("{:.0}", own_count(&reference, &tokens[0], 8)), "232");

    let ranks = ranks(&[8]);
    let placement = placed(&input(&tokens, &ranks, 8));
    assert_eq!(
        format!("{:.1}", busiest(&placement.map, 0, &tokens[0])),
        "196.7",
        "{}",
        placement.map.table()
    );
    assert_eq!(format!("{:.3}", placement.after.balance), "1.085");
}

/// Two copies on one rank split an expert's tokens unevenly over ranks, which copies on different ranks cannot: here they
/// take two thirds. No map does as well; the exhaustive solver of the tests beside says 65.
#[test]
fn two_copies_on_a_rank_can_be_better_than_any_map() {
    let tokens = vec![vec![90, 20, 10, 0]];
    let reference = eplb::place(&as_f32(&tokens[0]), 6, 1, 1, 2).unwrap();
    assert_eq!(own_count(&reference, &tokens[0], 2), 60.0);
    assert_eq!(busiest(&collapsed(&reference, 4, 2).0, 0, &tokens[0]), 75.0);
    let ranks = ranks(&[2]);
    assert_eq!(busiest(&placed(&input(&tokens, &ranks, 2)).map, 0, &tokens[0]), 65.0);
}

/// Compared are loads of the busiest rank when copies share their expert's tokens evenly. Where EPLB puts two copies on
/// one rank, which no map can, another copy takes the place of one of them: all copies that are asked for are held.
/// Nothing is shaken here: that could only replace what is found by something better.
///
/// Crowded copies are only allowed where they are the price for being as good as EPLB.
#[test]
fn never_busier_than_eplb() {
    let mut dice = Dice::new(20_261_123);
    let (mut better, mut answers, mut doubled, mut worse, mut crowded) = (0, 0, 0, 0, 0);
    for case in 0..100_000 {
        let nodes = [1, 1, 2, 4][dice.below(4)];
        let on_each = 1 + dice.below(8 / nodes);
        let (each, count) = (1 + dice.below(4), nodes * on_each);
        let slots = each * count;
        let experts = slots - dice.below(slots.min(1 + 2 * count));
        let groups = if experts.is_multiple_of(nodes) { nodes } else { 1 };
        let tokens = loads::draw(experts, &mut dice);

        let node_of: Vec<usize> = (0..count).map(|rank| rank / on_each).collect();
        let shares = vec![each.min(experts); count];
        let terms = Terms::new(&tokens, &node_of, &shares);
        let layer = fresh::arrange(&terms, groups, case, 0);
        let is_crowded = layer.crowded() > 0;
        let map = ExpertMap::new(1, experts, vec![layer.into_held()]).unwrap();
        let ours = busiest(&map, 0, &tokens);
        let mut least = f64::INFINITY;
        for (groups, nodes) in [(1, 1), (groups, nodes)] {
            let reference = eplb::place(&as_f32(&tokens), shares[0] * count, groups, nodes, count);
            let Some(reference) = reference else { continue };
            let (theirs, doubles) = possible(&reference, &terms);
            assert!(
                ours <= theirs * (1.0 + 1e-8),
                "case {case}: {ours} > {theirs}, {tokens:?} on {nodes} nodes of {on_each} ranks of {each} slots\n{}{}",
                map.table(),
                collapsed(&reference, experts, count).0.table()
            );
            // What the copies cost that EPLB does not make because it has doubles.
            let fewer = busiest(&collapsed(&reference, experts, count).0, 0, &tokens);
            worse += usize::from(ours > fewer * (1.0 + 1e-8));
            answers += 1;
            better += usize::from(ours < theirs * (1.0 - 1e-8));
            doubled += usize::from(doubles);
            least = least.min(theirs);
        }
        assert!(!is_crowded || least.is_finite(), "case {case} is crowded for no reason");
        crowded += usize::from(is_crowded);
    }
    println!(
        "{answers} answers of EPLB, {doubled} with doubles; {better} times ours is better, {worse} times busier than with \
         fewer copies than asked for; {crowded} of 100000 crowded"
    );
    assert!(doubled > 1000 && answers - doubled > 1000, "both kinds are there: {doubled} of {answers}");
}

#[test]
fn never_busier_than_eplb_with_all_effort() {
    let mut dice = Dice::new(7);
    for _ in 0..300 {
        let (each, count) = (1 + dice.below(5), 1 + dice.below(12));
        let experts = each * count - dice.below(each * count);
        let each = each.min(experts);
        let tokens = vec![loads::draw(experts, &mut dice)];
        let ranks = ranks(&[count]);
        let Some(reference) = eplb::place(&as_f32(&tokens[0]), each * count, 1, 1, count) else { continue };
        let (nodes, shares) = (vec![0; count], vec![each; count]);
        let terms = Terms::new(&tokens[0], &nodes, &shares);
        let (theirs, _) = possible(&reference, &terms);
        let placement = placed(&input(&tokens, &ranks, each * count - experts));
        let ours = busiest(&placement.map, 0, &tokens[0]);
        assert!(
            ours <= theirs * (1.0 + 1e-8),
            "{ours} > {theirs}: {tokens:?} on {count} ranks of {each} slots"
        );
    }
}
