//! What holds for every placement, whatever was before it.

use super::super::dice::Dice;
use super::super::{Figures, Together, Unplaceable, possible_copies};
use super::{Input, Rank, busiest, input, loads, place, placed, ranks};
use coterie_api::expert_map::{EXPERTS_LIMIT, ExpertMap, LAYERS_LIMIT, NoMap, RANKS_LIMIT};

/// A random replica: tokens of some layers, ranks on nodes with memory for all experts and some more, redundancy.
fn replica(dice: &mut Dice) -> (Vec<Vec<u64>>, Vec<Rank>, usize) {
    let (layers, experts, nodes) = (1 + dice.below(3), 1 + dice.below(24), 1 + dice.below(3));
    let each: Vec<usize> = (0..nodes).map(|_| 1 + dice.below(3)).collect();
    let tokens = (0..layers).map(|_| loads::draw(experts, dice)).collect();
    let mut ranks = ranks(&each);
    let need = (layers * experts).div_ceil(ranks.len());
    for rank in &mut ranks {
        rank.slots = if dice.below(2) == 0 { usize::MAX } else { need + dice.below(need + 1) };
    }
    (tokens, ranks, dice.below(experts + 2))
}

/// `ExpertMap::new` has seen to it that every expert is somewhere and none twice on a rank.
fn check(map: &ExpertMap, input: &Input) {
    assert_eq!((map.layers(), map.ranks()), (input.tokens.len(), input.ranks.len()));
    for (rank, limit) in input.ranks.iter().enumerate() {
        assert!(
            map.slots_of(rank) <= limit.slots,
            "rank {rank} has memory for {}:\n{}",
            limit.slots,
            map.table()
        );
    }
    for layer in 0..map.layers() {
        let slots: usize = (0..map.ranks()).map(|rank| map.held(layer, rank).len()).sum();
        assert!(
            slots <= map.experts() + input.redundant,
            "layer {layer} has too many copies:\n{}",
            map.table()
        );
    }
    let (layers, experts) = (map.layers(), map.experts());
    let possible = possible_copies(input.ranks, layers, experts, input.redundant).unwrap();
    assert_eq!(map.copies(), possible, "of {} copies for each layer:\n{}", input.redundant, map.table());
}

#[test]
fn every_first_map_fits_and_is_the_same_again() {
    let mut dice = Dice::new(2);
    for _ in 0..300 {
        let (tokens, ranks, redundant) = replica(&mut dice);
        let input = input(&tokens, &ranks, redundant);
        let placement = placed(&input);
        check(&placement.map, &input);
        assert_eq!(placement.map.version(), 1);
        assert_eq!(placement, placed(&input), "the same input, the same map");
    }
}

#[test]
fn placing_again_changes_nothing() {
    let mut dice = Dice::new(3);
    for _ in 0..300 {
        let (tokens, ranks, redundant) = replica(&mut dice);
        let first = placed(&input(&tokens, &ranks, redundant));
        let later: Vec<Vec<u64>> = tokens.iter().map(|tokens| loads::draw(tokens.len(), &mut dice)).collect();
        let second = placed(&Input { current: Some(&first.map), ..input(&later, &ranks, redundant) });
        for (tokens, current) in [(&tokens, &first.map), (&later, &second.map)] {
            let again = placed(&Input { current: Some(current), ..input(tokens, &ranks, redundant) });
            assert_eq!(&again.map, current, "{tokens:?} {ranks:?} {redundant}");
            assert!(again.loads.is_empty() && again.forced == 0 && again.before == Some(again.after));
        }
    }
}

#[test]
fn what_changes_is_loaded_and_makes_the_map_better() {
    let mut dice = Dice::new(4);
    for _ in 0..300 {
        let (tokens, ranks, redundant) = replica(&mut dice);
        let current = placed(&input(&tokens, &ranks, redundant)).map;
        let later: Vec<Vec<u64>> = tokens.iter().map(|tokens| loads::draw(tokens.len(), &mut dice)).collect();
        let input = Input { current: Some(&current), ..input(&later, &ranks, redundant) };
        let next = placed(&input);
        check(&next.map, &input);
        assert_eq!(next.loads.len(), next.map.loads_from(&current));
        assert_eq!(next.map.version(), current.version() + u64::from(next.map != current));
        // As good as what is found without regard to the current map, but for what counts as equally good.
        let best = placed(&Input { current: None, ..input });
        let is_as_good = next.after.balance <= best.after.balance * 1.01 + 1e-9;
        assert!(is_as_good || next.after.crowded < best.after.crowded, "{:?} {:?}", next.after, best.after);
        assert_eq!(next.forced, 0, "all experts are somewhere, within all limits");
    }
}

#[test]
fn a_budget_is_kept_and_many_small_steps_come_to_an_end() {
    let mut dice = Dice::new(5);
    for _ in 0..100 {
        let (tokens, ranks, redundant) = replica(&mut dice);
        let first = placed(&input(&tokens, &ranks, redundant)).map;
        let later: Vec<Vec<u64>> = tokens.iter().map(|tokens| loads::draw(tokens.len(), &mut dice)).collect();
        let budget = dice.below(6);
        let (mut current, mut steps) = (first, 0);
        loop {
            let input =
                Input { current: Some(&current), budget: Some(budget), ..input(&later, &ranks, redundant) };
            let next = placed(&input);
            check(&next.map, &input);
            assert!(next.loads.len() <= budget);
            let (before, after) = (next.before.unwrap(), next.after);
            assert!(after.balance <= before.balance * 1.01 + 1e-9 || after.crowded < before.crowded);
            if next.map == current {
                break;
            }
            (current, steps) = (next.map, steps + 1);
            assert!(steps < 200, "it does not end");
        }
    }
}

#[test]
fn the_move_that_gains_most_comes_first() {
    // Layer 1 has nearly all tokens. One load in each layer would help.
    let tokens = vec![vec![3, 3, 1, 1], vec![3000, 3000, 1000, 1000]];
    let current = ExpertMap::new(5, 4, vec![vec![vec![0, 1], vec![2, 3]]; 2]).unwrap();
    let ranks = ranks(&[2]);
    let input = Input { current: Some(&current), budget: Some(2), ..input(&tokens, &ranks, 0) };
    let next = placed(&input);
    assert_eq!(next.map.version(), 6);
    assert!(next.loads.iter().all(|load| load.layer == 1) && next.loads.len() == 2, "{:?}", next.loads);
    assert_eq!(busiest(&next.map, 1, &tokens[1]), 4000.0);
    assert_eq!(placed(&Input { budget: Some(1), ..input }).map, current, "half a swap is none");
}

#[test]
fn ranks_come_and_go() {
    let mut dice = Dice::new(6);
    for _ in 0..200 {
        let (layers, experts, redundant) = (1 + dice.below(3), 4 + dice.below(12), dice.below(4));
        let tokens: Vec<Vec<u64>> = (0..layers).map(|_| loads::draw(experts, &mut dice)).collect();
        let (two, three) = (ranks(&[1, 1]), ranks(&[1, 1, 1]));
        let before = placed(&input(&tokens, &three, redundant)).map;

        // 3 to 2: what only the third had is loaded even without a budget for it.
        let given_up = Input { current: Some(&before), budget: Some(0), ..input(&tokens, &two, redundant) };
        let next = placed(&given_up);
        check(&next.map, &given_up);
        let is_only_there =
            |layer, expert| !before.holds(layer, 0, expert) && !before.holds(layer, 1, expert);
        let only_there = |layer| (0..experts).filter(|&expert| is_only_there(layer, expert)).count();
        let lost = (0..layers).map(only_there).sum::<usize>();
        let kept = before.slots_of(0) + before.slots_of(1) - (layers * experts - lost);
        assert_eq!(next.forced, lost + next.map.copies().saturating_sub(kept), "{}", before.table());
        assert_eq!(next.loads.len(), next.forced);

        // 2 to 3: nothing is forced; with a budget in steps, without in one.
        let small = placed(&input(&tokens, &two, redundant)).map;
        let added = Input { current: Some(&small), ..input(&tokens, &three, redundant) };
        let next = placed(&added);
        check(&next.map, &added);
        assert!(next.forced == 0 && next.map.slots_of(2) > 0);
        let step = placed(&Input { budget: Some(1), ..added });
        assert!(step.loads.len() <= 1);
    }
}

/// Whatever was before: other widths, other loads, other memory, small budgets.
#[test]
fn every_map_of_a_long_life_has_the_copies_that_are_asked_for() {
    let mut dice = Dice::new(9);
    for _ in 0..60 {
        let (layers, experts) = (1 + dice.below(6), 2 + dice.below(14));
        let mut redundant = dice.below(4);
        let mut current: Option<ExpertMap> = None;
        for _ in 0..12 {
            let width = 1 + dice.below(5);
            let slots = match dice.below(3) {
                0 => (layers * experts).div_ceil(width) + dice.below(layers * 2),
                _ => usize::MAX,
            };
            let ranks: Vec<Rank> = (0..width).map(|_| Rank { node: dice.below(3), slots }).collect();
            if dice.below(4) == 0 {
                redundant = dice.below(experts + 2);
            }
            let tokens: Vec<Vec<u64>> = match dice.below(4) {
                0 => vec![vec![0; experts]; layers],
                _ => (0..layers).map(|_| loads::draw(experts, &mut dice)).collect(),
            };
            let budget = (dice.below(3) > 0).then(|| dice.below(9));
            let next =
                placed(&Input { current: current.as_ref(), budget, ..input(&tokens, &ranks, redundant) });
            let distinct = redundant.min(experts * (width - 1));
            let room = slots.saturating_mul(width) - layers * experts;
            let copies = |layer: usize| {
                (0..width).map(|rank| next.map.held(layer, rank).len()).sum::<usize>() - experts
            };
            let held: Vec<usize> = (0..layers).map(copies).collect();
            assert_eq!(
                held.iter().sum::<usize>(),
                (layers * distinct).min(room),
                "{redundant} for each layer of {experts} on {width} ranks of {slots}, from\n{}to\n{}",
                current.map(|map| map.table()).unwrap_or_default(),
                next.map.table()
            );
            if room >= layers * distinct {
                assert!(held.iter().all(|held| *held == distinct), "{held:?}");
            }
            current = Some(next.map);
        }
    }
}

#[test]
fn a_lost_expert_takes_the_place_of_a_copy_beyond_a_share() {
    let tokens = vec![vec![4, 3, 2, 1]];
    let current = ExpertMap::new(1, 4, vec![vec![vec![0, 1, 2], vec![0, 1, 2], vec![3]]]).unwrap();
    let ranks = ranks(&[2]);
    let next = placed(&Input { current: Some(&current), budget: Some(0), ..input(&tokens, &ranks, 0) });
    assert_eq!((next.forced, next.loads.len()), (1, 1));
    assert_eq!([next.map.held(0, 0).len(), next.map.held(0, 1).len()], [2, 2], "{}", next.map.table());
}

#[test]
fn a_rank_without_memory_is_emptied() {
    let tokens = vec![vec![5, 4, 3, 2, 1, 1]; 2];
    let mut ranks = ranks(&[1, 1, 1]);
    let current = placed(&input(&tokens, &ranks, 2)).map;
    ranks[1].slots = 0;
    let next = placed(&Input { current: Some(&current), budget: Some(0), ..input(&tokens, &ranks, 2) });
    assert_eq!((next.map.slots_of(1), next.loads.len()), (0, next.forced));
}

#[test]
fn copies_are_on_different_nodes_and_return_to_them() {
    let mut dice = Dice::new(8);
    let mut parted = 0;
    for _ in 0..300 {
        let (nodes, on_each, experts) = (2 + dice.below(2), 1 + dice.below(3), 4 + dice.below(12));
        let apart = ranks(&vec![on_each; nodes]);
        let tokens = vec![loads::draw(experts, &mut dice)];
        let input = input(&tokens, &apart, 1 + dice.below(experts));
        let placement = placed(&input);
        parted += usize::from(placement.after.crowded == 0 && placement.after.copies > 0);
        if placement.after.crowded > 0 {
            continue;
        }
        // The ranks' pods come back elsewhere: the copies are parted again.
        let mut mixed = apart.clone();
        (1..mixed.len()).for_each(|at| mixed.swap(at, dice.below(at + 1)));
        let next = placed(&Input { ranks: &mixed, current: Some(&placement.map), ..input });
        assert_eq!(next.after.crowded, 0, "{}", next.map.table());
    }
    assert!(parted >= 295, "only {parted} of 300 have their copies on different nodes");
}

#[test]
fn experts_of_the_same_tokens_come_to_one_node() {
    let tokens = vec![vec![10; 8]];
    let ranks = ranks(&[2, 2]);
    // Even ones are needed together, and so are odd ones.
    let pairs = (0..8).flat_map(|a| (a + 1..8).map(move |b| [a, b]));
    let pairs = pairs
        .map(|experts| Together { experts, tokens: if (experts[0] + experts[1]) % 2 == 0 { 9 } else { 1 } });
    let together = vec![pairs.collect::<Vec<_>>()];
    let blind = placed(&input(&tokens, &ranks, 0));
    let seeing = placed(&Input { together: Some(&together), ..input(&tokens, &ranks, 0) });
    assert_eq!((blind.after.cross_node, blind.after.balance, seeing.after.balance), (None, 1.0, 1.0));
    let cross = |map: &ExpertMap| {
        Figures::of(map, &Input { together: Some(&together), ..input(&tokens, &ranks, 0) })
            .cross_node
            .unwrap()
    };
    assert!(cross(&seeing.map) <= cross(&blind.map), "{} {}", cross(&seeing.map), cross(&blind.map));
    assert_eq!(seeing.after.cross_node, Some(cross(&seeing.map)));
}

#[test]
fn without_counts_nothing_moves_and_a_first_map_is_even() {
    let tokens = vec![vec![0; 12]];
    let ranks = ranks(&[3]);
    let even = placed(&input(&tokens, &ranks, 3));
    assert_eq!((0..3).map(|rank| even.map.slots_of(rank)).collect::<Vec<_>>(), [5, 5, 5]);
    assert_eq!((even.after.balance, even.chance), (1.0, 0.0));
    let lopsided =
        ExpertMap::new(4, 12, vec![vec![vec![0, 1, 2, 3, 4], vec![5, 6, 7, 8, 0], vec![9, 10, 11, 0, 1]]])
            .unwrap();
    let next = placed(&Input { current: Some(&lopsided), ..input(&tokens, &ranks, 3) });
    assert_eq!(next.map, lopsided);
}

#[test]
fn what_cannot_be_placed_is_told() {
    let (tokens, two) = (vec![vec![1; 4]; 2], ranks(&[2]));
    let good = input(&tokens, &two, 0);
    assert!(place(&good).is_ok());
    let few = [Rank { node: 0, slots: 3 }; 2];
    assert!(matches!(
        place(&Input { ranks: &few, ..good }),
        Err(Unplaceable::TooFewSlots { needed: 8, free: 6, .. })
    ));
    let ragged = vec![vec![1; 4], vec![1; 3]];
    assert_eq!(
        place(&Input { tokens: &ragged, ..good }),
        Err(Unplaceable::Ragged { layer: 1, found: 3, expected: 4 })
    );
    let other = ExpertMap::even(1, 2, 5, 2).unwrap();
    assert!(matches!(
        place(&Input { current: Some(&other), ..good }),
        Err(Unplaceable::OtherModel { map_experts: 5, .. })
    ));
    let together = vec![vec![], vec![Together { experts: [1, 4], tokens: 1 }]];
    assert!(matches!(
        place(&Input { together: Some(&together), ..good }),
        Err(Unplaceable::UnknownPair { layer: 1, b: 4, .. })
    ));
    let none = |what, limit| Err(Unplaceable::NoMap(NoMap::Count { what, count: 0, limit }));
    assert_eq!(place(&Input { ranks: &[], ..good }), none("ranks", RANKS_LIMIT));
    assert_eq!(place(&Input { tokens: &[], ..good }), none("layers", LAYERS_LIMIT));
    assert_eq!(place(&Input { tokens: &[vec![], vec![]], ..good }), none("experts", EXPERTS_LIMIT));
}
