//! Random loads of experts.

use super::super::dice::Dice;

/// Tokens of each expert: Zipf, lognormal, uniform or one-hot, with random parameters, in random order.
pub(super) fn draw(experts: usize, dice: &mut Dice) -> Vec<u64> {
    let exponent = 0.3 + 1.7 * unit(dice);
    let sigma = 0.2 + 2.0 * unit(dice);
    let hot = 10.0 * experts as f64 * unit(dice);
    let kind = dice.below(4);
    let mut tokens: Vec<u64> = (0..experts)
        .map(|place| match kind {
            0 => 1e5 / (place as f64 + 1.0).powf(exponent),
            1 => 1000.0 * (sigma * normal(dice)).exp(),
            2 => 1000.0 * unit(dice),
            _ if place == 0 => 1000.0 * hot,
            _ => 1000.0,
        })
        .map(|tokens| tokens as u64)
        .collect();
    (1..experts).for_each(|at| tokens.swap(at, dice.below(at + 1)));
    tokens
}

/// Evenly from 0 to 1.
pub(super) fn unit(dice: &mut Dice) -> f64 {
    (dice.next() >> 11) as f64 / (1_u64 << 53) as f64
}

fn normal(dice: &mut Dice) -> f64 {
    (-2.0 * (1.0 - unit(dice)).ln()).sqrt() * (std::f64::consts::TAU * unit(dice)).cos()
}
