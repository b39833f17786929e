//! All arrangements of small layers, to compare with.

use super::super::dice::Dice;
use super::{busiest, input, loads, placed, ranks};

/// The load of the busiest rank in the best of all arrangements of `ranks` ranks that hold `each` experts, or all.
fn optimum(tokens: &[u64], ranks: usize, each: usize) -> f64 {
    let each = each.min(tokens.len());
    let sets: Vec<u32> = (0..1_u32 << tokens.len()).filter(|set| set.count_ones() as usize == each).collect();
    let mut best = f64::INFINITY;
    search(tokens, &sets, ranks, &mut Vec::new(), &mut best);
    best
}

/// Ranks are alike, so sets are given in order.
fn search(tokens: &[u64], sets: &[u32], ranks: usize, given: &mut Vec<u32>, best: &mut f64) {
    if given.len() < ranks {
        for (at, &set) in sets.iter().enumerate() {
            given.push(set);
            search(tokens, &sets[at..], ranks, given, best);
            given.pop();
        }
        return;
    }
    let copies = |expert: usize| given.iter().filter(|&&set| set >> expert & 1 == 1).count();
    if (0..tokens.len()).any(|expert| copies(expert) == 0) {
        return;
    }
    let parts: Vec<f64> =
        (0..tokens.len()).map(|expert| tokens[expert] as f64 / copies(expert) as f64).collect();
    let load = |set: &u32| {
        (0..tokens.len()).filter(|expert| set >> expert & 1 == 1).map(|expert| parts[expert]).sum()
    };
    *best = given.iter().map(load).fold(0.0, f64::max).min(*best);
}

#[test]
fn the_solver_solves() {
    assert_eq!(optimum(&[3, 2, 1], 2, 2), 3.5);
    assert_eq!(optimum(&[90, 20, 10, 0], 2, 3), 65.0);
}

#[test]
fn small_layers_are_solved_as_well_as_can_be() {
    let mut dice = Dice::new(1);
    let sizes = [(2, 2), (2, 3), (2, 4), (3, 2), (3, 3), (4, 2), (5, 2)];
    for case in 0..2000 {
        let (count, each) = sizes[case % sizes.len()];
        let experts = (count * each - dice.below(count * each)).min(6);
        let tokens = vec![loads::draw(experts, &mut dice)];
        let ranks = ranks(&[count]);
        let placement = placed(&input(&tokens, &ranks, count * each - experts));
        let (ours, best) = (busiest(&placement.map, 0, &tokens[0]), optimum(&tokens[0], count, each));
        let table = placement.map.table();
        assert!(
            ours <= best * (1.0 + 1e-8),
            "case {case}: {ours} > {best}, {tokens:?} on {count} of {each}\n{table}"
        );
    }
}
