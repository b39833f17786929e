//! The CUDA kernels where there is no GPU: compiled as C++, with threads, shared memory and tensor cores emulated, over
//! the CPU's own list of cases.

mod cuda {
    pub mod attention;
    pub mod device;
    pub mod emulation;
    pub mod experts;
    pub mod faults;
    pub mod layer;
    pub mod lightning;
    pub mod memory;
    pub mod sample;
    pub mod sources;
}
mod ops {
    #![allow(dead_code)] // each test binary uses a part
    pub mod attention;
    pub mod cases;
    pub mod device;
    pub mod gates;
    pub mod latent;
    pub mod lightning;
    pub mod products;
    pub mod random;
}

use cuda::emulation::Emulation;
use ops::cases::{Case, Inputs, all};

/// ‖got − exact‖ / ‖exact‖.
fn error(got: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(got.len(), exact.len(), "length");
    let difference: f64 = got.iter().zip(exact).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    let size: f64 = exact.iter().map(|b| b * b).sum();
    (difference / size.max(1e-300)).sqrt()
}

/// ‖got − exact‖ ≤ (bound + what the device may add) · ‖exact‖, and the same bits in whatever order threads run.
#[test]
fn kernels_are_close_to_the_exact_result() {
    let devices = [false, true].map(Emulation::load);
    let (mut checked, mut wrong, mut left_out) = (0, Vec::new(), Vec::new());
    for Case { name, run, exact, bound, .. } in all(Inputs::Bf16) {
        if std::env::var("CASE").is_ok_and(|part| !name.contains(&part)) {
            continue;
        }
        let [Some((got, added)), Some((backwards, _))] = devices.each_ref().map(|device| run(device)) else {
            left_out.push(name);
            continue;
        };
        checked += 1;
        let error = error(&got, &exact);
        if error.is_nan() || error > bound + added {
            wrong.push(format!("{name}: error {error:.2e} is over {:.0e}", bound + added));
        }
        if got.iter().zip(&backwards).any(|(a, b)| a.to_bits() != b.to_bits()) {
            wrong.push(format!("{name}: the order in which threads run decides the result"));
        }
    }
    println!("{checked} cases; no kernel of these ops and sizes: {left_out:#?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn layers_of_every_format_are_close_to_the_exact_result() {
    let device = Emulation::load(false);
    cuda::layer::layers_of_every_format_are_close_to_the_exact_result(&device);
}

#[test]
fn tokens_are_drawn_by_the_rule() {
    for backwards in [false, true] {
        cuda::sample::tokens_are_drawn_by_the_rule(&Emulation::load(backwards));
    }
}

#[test]
fn faults_of_kernels_are_noticed() {
    cuda::faults::faults_of_kernels_are_noticed();
}
