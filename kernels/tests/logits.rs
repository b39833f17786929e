//! Choices from logits, and values that are not numbers.

#[path = "ops/random.rs"]
mod random;

use coterie_kernels::cpu::isa::Isa;
use coterie_kernels::cpu::matmul::{self, Matrix};
use coterie_kernels::cpu::pool::Pool;
use coterie_kernels::cpu::quant::Int8;
use coterie_kernels::cpu::{gate, logits};
use coterie_kernels::gate::{Groups, Rule, Scores, Worth};
use random::Random;

#[test]
fn the_best_come_first_and_ties_go_to_the_lowest_id() {
    let mut row = Random::new(4).values(5000);
    (row[4000], row[70], row[71], row[4999]) = (9.0, 9.0, 8.0, 8.0);
    for &isa in Isa::available() {
        let pool = Pool::with_isa(1, isa);
        assert_eq!(logits::argmax(&pool, &row), 70);
        let (of_token, top) = logits::log_softmax_top(&pool, &row, 123, 20);
        assert_eq!(top.iter().take(4).map(|(id, _)| *id).collect::<Vec<_>>(), [70, 4000, 71, 4999]);
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        for ((id, log), expected) in top.iter().zip(&order) {
            assert_eq!(*id as usize, *expected);
            assert!((f64::from(*log) - (f64::from(row[*expected]) - sum.ln())).abs() < 2e-6);
        }
        assert_eq!(top.len(), 20);
        assert!((f64::from(of_token) - (f64::from(row[123]) - sum.ln())).abs() < 2e-6);
        assert_eq!(logits::log_softmax_top(&pool, &row[..3], 2, 20).1.len(), 3);
        assert_eq!(logits::log_softmax_top(&pool, &row, 0, 0).1, []);
    }
}

#[test]
fn nan_is_never_chosen_over_a_number() {
    for &isa in Isa::available() {
        let pool = Pool::with_isa(1, isa);
        let mut row = vec![f32::NAN; 40];
        assert_eq!(logits::argmax(&pool, &row), 0);
        (row[7], row[33]) = (-5.0, -4.0);
        assert_eq!(logits::argmax(&pool, &row), 33);
    }
}

#[test]
fn weights_are_those_of_the_temperature_and_the_same_on_every_instruction_set() {
    let mut row: Vec<f32> = Random::new(9).values(1003).into_iter().map(|x| (9.0 * x).min(9.0)).collect();
    (row[5], row[9], row[1001]) = (f32::NEG_INFINITY, f32::NAN, 9.0);
    for (temperature, least) in [(0.7, 0.0), (3.0, 0.02), (1e-30, 0.0), (f32::INFINITY, 0.5)] {
        let mut of_first = None;
        for &isa in Isa::available() {
            let mut weights = row.clone();
            logits::weigh(isa, &mut weights, 9.0, temperature, least);
            for (x, weight) in row.iter().zip(&weights) {
                let exact = (f64::from(x - 9.0) / f64::from(temperature)).exp();
                let exact = if exact.is_nan() || exact < f64::from(least) { 0.0 } else { exact };
                let near = (f64::from(*weight) - exact).abs() <= 1e-5 * exact + 1e-38;
                assert!(near, "{isa:?}: {x} at {temperature} weighs {weight}, not {exact}");
            }
            let bits: Vec<u32> = weights.iter().map(|weight| weight.to_bits()).collect();
            assert_eq!(*of_first.get_or_insert_with(|| bits.clone()), bits, "{isa:?}");
        }
    }
}

#[test]
fn the_gate_gives_valid_distinct_experts_for_any_logits() {
    let pool = Pool::new(1);
    let plain = Rule { per_token: 3, scores: Scores::Softmax, groups: None, renormalise: true, factor: 1.0 };
    let groups = Some(Groups { count: 3, kept: 2, worth: Worth::TwoBest });
    let (bad, worst) = (f32::NAN, f32::NEG_INFINITY);
    for rule in [plain, Rule { scores: Scores::SoftmaxOfChosen, ..plain }, Rule { groups, ..plain }] {
        for logits in [[bad; 6], [worst; 6], [f32::INFINITY, 0.0, worst, f32::INFINITY, bad, 1.0]] {
            let (mut ids, mut weights) = ([9; 3], [0.0; 3]);
            gate::choose(&pool, &logits, None, 6, &rule, &mut ids, &mut weights);
            ids.sort_unstable();
            assert!(ids.windows(2).all(|pair| pair[0] < pair[1]) && ids[2] < 6, "{ids:?}");
        }
    }
}

/// A broken activation or weight shows in every output it touches, and in no other.
#[test]
fn int8_products_do_not_hide_values_that_are_not_finite() {
    let (n, k) = (24, 200);
    let mut random = Random::new(8);
    let mut w = random.bf16s(n * k);
    w[5 * k + 100] = half::bf16::NAN;
    for &isa in Isa::available() {
        let pool = Pool::with_isa(1, isa);
        let int8 = Int8::quantize_bf16(&pool, &w, n, k);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = random.values(3 * k);
            x[k + 199] = bad;
            let mut out = vec![0.0; 3 * n];
            matmul::any(&pool, &mut out, &x, Matrix::Int8(int8.view()), 3);
            for (i, out) in out.iter().enumerate() {
                let touched = i / n == 1 || i % n == 5;
                assert_eq!(out.is_nan(), touched, "{isa:?}: {bad} at output {i}");
            }
        }
    }
}
