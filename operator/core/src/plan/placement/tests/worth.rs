//! Noise does not move experts, and what is real does.

use super::super::dice::Dice;
use super::super::{Moving, Window, worth};
use super::{Input, Placement, input, loads, placed, ranks};

const LAYERS: usize = 4;
const EXPERTS: usize = 32;

/// Moving costs next to nothing, so that chance alone decides.
const CHEAP: Moving =
    Moving { bytes_per_slot: 1.0, bytes_per_second: 1e9, disturbance: 0.1, seconds_each: 0.0 };
const WINDOW: Window = Window { seconds: 300.0, tokens: 1e6, seconds_per_token: 1e-4 };

/// Shares of experts by Zipf's law, the busiest of layer l at `(7l + shift) % EXPERTS`.
fn zipf(shift: usize) -> Vec<Vec<f64>> {
    let share = |layer: usize, expert: usize| {
        1.0 / (1 + (expert + EXPERTS - (7 * layer + shift) % EXPERTS) % EXPERTS) as f64
    };
    (0..LAYERS).map(|layer| (0..EXPERTS).map(|expert| share(layer, expert)).collect()).collect()
}

/// What `tokens` tokens, each sent to one expert of each layer by these shares, look like in the counts.
fn sample(shares: &[Vec<f64>], tokens: usize, dice: &mut Dice) -> Vec<Vec<u64>> {
    let of_layer = |shares: &Vec<f64>| {
        let sum: f64 = shares.iter().sum();
        let mut counts = vec![0; shares.len()];
        for _ in 0..tokens {
            let mut left = loads::unit(dice) * sum;
            let expert = shares.iter().position(|share| {
                left -= share;
                left < 0.0
            });
            counts[expert.unwrap_or(shares.len() - 1)] += 1;
        }
        counts
    };
    shares.iter().map(of_layer).collect()
}

fn next(tokens: &[Vec<u64>], before: &Placement) -> Placement {
    let ranks = ranks(&[4, 4]);
    placed(&Input { current: Some(&before.map), ..input(tokens, &ranks, 8) })
}

#[test]
fn chance_moves_nothing_and_a_change_of_load_does() {
    let mut dice = Dice::new(9);
    let all = ranks(&[4, 4]);
    for counted in [1000, 10_000, 100_000] {
        let first = placed(&input(&sample(&zipf(0), counted, &mut dice), &all, 8));
        for _ in 0..20 {
            let again = next(&sample(&zipf(0), counted, &mut dice), &first);
            let verdict = worth(&again, &WINDOW, &CHEAP);
            assert!(!verdict.pays, "{verdict} {:?} {:?} {}", again.before, again.after, again.chance);
        }
        let other = next(&sample(&zipf(11), counted, &mut dice), &first);
        let verdict = worth(&other, &WINDOW, &CHEAP);
        assert!(verdict.pays, "{verdict} {:?} {:?} {}", other.before, other.after, other.chance);
    }
}

#[test]
fn a_gain_is_weighed_against_what_it_costs() {
    let mut dice = Dice::new(10);
    let all = ranks(&[4, 4]);
    let first = placed(&input(&sample(&zipf(0), 10_000, &mut dice), &all, 8));
    let other = next(&sample(&zipf(11), 10_000, &mut dice), &first);
    let better = other.before.unwrap().balance - other.after.balance - other.chance;
    let most = (0..8).map(|rank| other.loads.iter().filter(|load| load.rank == rank).count()).max().unwrap();

    // 100 s of work, and loading takes half of a rank's time at 1 GB/s.
    let gain = 100.0 * better;
    let moving = |cost: f64| Moving {
        bytes_per_slot: (cost - 1.0) * 2e9 / most as f64,
        bytes_per_second: 1e9,
        disturbance: 0.5,
        seconds_each: 1.0,
    };
    let cheap = worth(&other, &WINDOW, &moving(gain / 2.1));
    assert!(
        cheap.pays && (cheap.gain - gain).abs() < 1e-9 && (cheap.cost - gain / 2.1).abs() < 1e-9,
        "{cheap:?}"
    );
    let dear = worth(&other, &WINDOW, &moving(gain / 1.9));
    assert!(!dear.pays, "{dear:?}");
    let quiet = worth(&other, &Window { tokens: 0.0, ..WINDOW }, &CHEAP);
    assert!(!quiet.pays && quiet.gain == 0.0, "nobody asks, so nothing is gained");
    let text = format!("{}", worth(&first, &WINDOW, &CHEAP));
    assert!(text.starts_with("not worth it: would save 0.0 s of the next 300 s and cost"), "{text}");
}

#[test]
fn what_moves_nothing_is_not_worth_anything() {
    let all = ranks(&[4, 4]);
    let tokens = sample(&zipf(0), 10_000, &mut Dice::new(11));
    let first = placed(&input(&tokens, &all, 8));
    let free = Moving { bytes_per_slot: 0.0, ..CHEAP };
    assert!(!worth(&next(&tokens, &first), &WINDOW, &free).pays);
}
