//! The list of cases on devices that must agree.

use super::machine::Machine;
use crate::ops::cases::{Case, Inputs, all};

/// ‖got − exact‖ / ‖exact‖.
pub fn error(got: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(got.len(), exact.len(), "length");
    let difference: f64 = got.iter().zip(exact).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    let size: f64 = exact.iter().map(|b| b * b).sum();
    (difference / size.max(1e-300)).sqrt()
}

/// ‖got − exact‖ ≤ (bound + what the device may add) · ‖exact‖, and the same bits on both.
pub fn close_to_the_exact_result(devices: &[Machine; 2]) {
    all_close(devices, all(Inputs::Bf16));
}

/// The same of the products alone.
pub fn products_are_close_to_the_exact_result(devices: &[Machine; 2]) {
    let products = all(Inputs::Bf16).into_iter().filter(|case| case.name.contains(" product "));
    all_close(devices, products.collect());
}

fn all_close(devices: &[Machine; 2], cases: Vec<Case>) {
    let (mut checked, mut wrong, mut left_out) = (0, Vec::new(), Vec::new());
    for Case { name, run, exact, bound, .. } in cases {
        let [Some((got, added)), Some((other, _))] = devices.each_ref().map(|device| run(device)) else {
            left_out.push(name);
            continue;
        };
        checked += 1;
        let error = error(&got, &exact);
        if error.is_nan() || error > bound + added {
            wrong.push(format!("{name}: error {error:.2e} is over {:.0e}", bound + added));
        }
        if got.iter().zip(&other).any(|(a, b)| a.to_bits() != b.to_bits()) {
            wrong.push(format!("{name}: the order in which threads run decides the result"));
        }
    }
    println!("{checked} cases; no kernel of these ops and sizes: {left_out:#?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
