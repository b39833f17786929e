//! The busiest rank is never busier than EPLB's.

use super::super::dice::Dice;
use super::super::eplb;
use super::{busiest, input, loads, placed, ranks};
use coterie_api::expert_map::ExpertMap;

#[test]
fn the_example_of_two_hot_experts_is_solved() {
    let tokens = vec![vec![600, 560, 120, 120, 20, 10, 10, 10]];
    let as_f32: Vec<f32> = tokens[0].iter().map(|&tokens| tokens as f32).collect();
    let (reference, doubles) = collapsed(&eplb::place(&as_f32, 16, 1, 1, 8).unwrap(), 8, 8);
    assert!(!doubles);
    assert_eq!(format!("{:.0}", busiest(&reference, 0, &tokens[0])), "232");

    let ranks = ranks(&[8]);
    let placement = placed(&input(&tokens, &ranks, 8));
    assert_eq!(format!("{:.1}", busiest(&placement.map, 0, &tokens[0])), "196.7", "{}", placement.map.table());
    assert_eq!(format!("{:.3}", placement.after.balance), "1.085");
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

/// What is compared is the load of the busiest rank when copies share their expert's tokens evenly. Where EPLB puts two
/// copies on one rank, which no expert map can, they count as the one copy that a rank can hold.
#[test]
fn never_busier_than_eplb() {
    let mut dice = Dice::new(20_261_123);
    let (mut better, mut doubled, mut crowded) = (0, 0, 0);
    for case in 0..100_000 {
        let nodes = [1, 1, 2, 4][dice.below(4)];
        let on_each = 1 + dice.below(8 / nodes);
        let (each, count) = (1 + dice.below(4), nodes * on_each);
        let slots = each * count;
        let experts = slots - dice.below(slots.min(1 + 2 * count));
        let groups = if experts.is_multiple_of(nodes) { nodes } else { 1 };
        let tokens = vec![loads::draw(experts, &mut dice)];
        let as_f32: Vec<f32> = tokens[0].iter().map(|&tokens| tokens as f32).collect();

        let ranks = ranks(&vec![on_each; nodes]);
        let mut input = input(&tokens, &ranks, slots - experts);
        input.groups = groups;
        let placement = placed(&input);
        let ours = busiest(&placement.map, 0, &tokens[0]);
        for (groups, nodes) in [(1, 1), (groups, nodes)] {
            let reference = eplb::place(&as_f32, slots, groups, nodes, count).unwrap();
            let (reference, doubles) = collapsed(&reference, experts, count);
            let theirs = busiest(&reference, 0, &tokens[0]);
            assert!(
                ours <= theirs * (1.0 + 1e-9),
                "case {case}: {ours} > {theirs}, {tokens:?} on {nodes} nodes of {on_each} ranks of {each} slots\n{}{}",
                placement.map.table(),
                reference.table()
            );
            better += usize::from(ours < theirs * (1.0 - 1e-9));
            doubled += usize::from(doubles);
        }
        crowded += usize::from(placement.after.crowded > 0);
    }
    println!("{better} of 200000 better, {doubled} where EPLB has doubles, {crowded} crowded");
}
