//! One list of cases: every op, on every instruction set of this machine and with several thread counts, gives the
//! bits of its specification; and the specification is close to the same result taken in f64.

mod ops {
    pub mod attention;
    pub mod cases;
    pub mod device;
    pub mod gates;
    pub mod latent;
    pub mod lightning;
    pub mod products;
    pub mod random;
}

use coterie_kernels::cpu::isa::Isa;
use coterie_kernels::cpu::pool::Pool;
use ops::cases::{Case, Inputs, all};

#[test]
fn every_instruction_set_gives_the_bits_of_the_specification() {
    let cases = all(Inputs::F32);
    for &isa in Isa::available() {
        for threads in [1, 2, 3] {
            let pool = Pool::with_isa(threads, isa);
            for Case { name, run, specified, .. } in &cases {
                let (got, _) = run(&pool).expect("the CPU has every op");
                assert_eq!(got.len(), specified.len(), "{name}: length");
                let differs = got.iter().zip(specified).position(|(a, b)| a.to_bits() != b.to_bits());
                if let Some(at) = differs {
                    let (a, b) = (got[at], specified[at]);
                    panic!("{name} on {isa:?}, {threads} threads: [{at}] is {a:e}, specified {b:e}");
                }
            }
        }
    }
}

/// ‖specified − exact‖ ≤ bound · ‖exact‖.
#[test]
fn specifications_are_close_to_the_exact_result() {
    for Case { name, specified, exact, bound, .. } in all(Inputs::F32) {
        assert_eq!(specified.len(), exact.len(), "{name}: length");
        let difference: f64 = specified.iter().zip(&exact).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
        let size: f64 = exact.iter().map(|b| b * b).sum();
        let error = (difference / size.max(1e-300)).sqrt();
        assert!(error <= bound, "{name}: error {error:.2e} is over {bound:.0e}");
    }
}
