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

#[test]
#[ignore = "needs a GPU, and COTERIE_CUBINS, the folder that the test cubins wrote; cargo xtask gpu runs it"]
fn the_engine_does_on_a_gpu_what_it_does_in_emulation() {
    let cubins = std::env::var_os("COTERIE_CUBINS").expect("COTERIE_CUBINS is the folder of cubins");
    let driver = Driver::open(cubins.as_ref()).map_err(|why| why.to_string());
    let driver = Arc::new(driver.expect("there is a CUDA device"));
    let plain = driver.clone();
    let backend: MakeBackend<Cuda<Driver>> = Arc::new(move |threads| Cuda::new(driver.clone(), threads));
    let without_graphs: MakeBackend<Cuda<Driver>> =
        Arc::new(move |threads| Cuda::new(plain.clone(), threads).without_graphs());
    checks::draws::as_this_process_draws(&backend);
    checks::near_the_reference(&backend);
    checks::alone_as_in_company(&backend, &without_graphs);
}
