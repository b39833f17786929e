//! The engine on a GPU, by the checks that its CUDA backend passes in emulation. `cargo xtask gpu` runs it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod checks;
mod golden;
mod tiny_families;
mod tiny_mixtral;

use coterie_engine::backend::cuda::Cuda;
use coterie_engine::moe::host::MakeBackend;
use coterie_kernels::cuda::driver::Driver;
use std::sync::Arc;

/// Engines on this machine's GPU, with CUDA graphs and without.
fn backends() -> [MakeBackend<Cuda<Driver>>; 2] {
    let cubins = std::env::var_os("COTERIE_CUBINS").expect("COTERIE_CUBINS is the folder of cubins");
    let driver = Driver::open(cubins.as_ref()).map_err(|why| why.to_string());
    let driver = Arc::new(driver.expect("there is a CUDA device"));
    let plain = driver.clone();
    [
        Arc::new(move |threads| Cuda::new(driver.clone(), threads)),
        Arc::new(move |threads| Cuda::new(plain.clone(), threads).without_graphs()),
    ]
}

#[test]
#[ignore = "needs a GPU, and COTERIE_CUBINS, the folder that the test cubins wrote; cargo xtask gpu runs it"]
fn a_without_graphs_it_is_near_the_reference() {
    let [_, plain] = backends();
    checks::near_the_reference(&plain);
}

#[test]
#[ignore = "needs a GPU, and COTERIE_CUBINS, the folder that the test cubins wrote; cargo xtask gpu runs it"]
fn b_with_graphs_it_is_near_the_reference() {
    let [with_graphs, _] = backends();
    checks::near_the_reference(&with_graphs);
}

#[test]
#[ignore = "needs a GPU, and COTERIE_CUBINS, the folder that the test cubins wrote; cargo xtask gpu runs it"]
fn c_it_draws_as_this_process_draws() {
    let [with_graphs, _] = backends();
    checks::draws::as_this_process_draws(&with_graphs);
}

#[test]
#[ignore = "needs a GPU, and COTERIE_CUBINS, the folder that the test cubins wrote; cargo xtask gpu runs it"]
fn d_alone_by_graphs_has_the_bits_of_company_without() {
    let [with_graphs, plain] = backends();
    checks::alone_as_in_company(&with_graphs, &plain);
}
