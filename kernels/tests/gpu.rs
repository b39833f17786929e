//! The CUDA kernels on a GPU, by the checks that they pass in emulation. `cargo xtask gpu` runs it.

mod cuda {
    #![allow(dead_code)] // each test binary uses a part
    pub mod alone;
    pub mod attention;
    pub mod checks;
    pub mod columns;
    pub mod device;
    pub mod emulation;
    pub mod experts;
    pub mod graphs;
    pub mod guarded;
    pub mod layer;
    pub mod lightning;
    pub mod machine;
    pub mod memory;
    pub mod quantized;
    pub mod replay;
    pub mod rounded;
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

use coterie_kernels::cuda::device::Device;
use cuda::machine::Machine;
use cuda::{alone, checks, columns, layer, quantized, replay, rounded, sample};

#[test]
#[ignore = "needs a GPU, and COTERIE_CUBINS, the folder that the test cubins wrote; cargo xtask gpu runs it"]
fn kernels_do_on_a_gpu_what_they_do_in_emulation() {
    let cubins = std::env::var_os("COTERIE_CUBINS").expect("COTERIE_CUBINS is the folder of cubins");
    let gpu = Machine::gpu(cubins.as_ref());
    let Machine::Gpu(driver) = gpu else { return };
    println!("kernels of {}", driver.architecture());
    alone::a_row_of_a_product_does_not_depend_on_the_batch(&gpu);
    alone::attention_does_not_depend_on_chunks_or_neighbours(&gpu);
    alone::attention_over_many_keys_has_the_same_bits_in_every_form(&gpu);
    columns::are_copied_and_changed_exactly(&gpu);
    quantized::weights_are_as_on_the_cpu(&gpu);
    rounded::what_is_written_is_the_f32_result_rounded(&gpu);
    layer::of_every_format_are_close_to_the_exact_result(&gpu);
    sample::tokens_are_drawn_by_the_rule(&gpu);
    if driver.is_hopper() {
        // What the emulation takes for granted: a column of a warpgroup's product does not depend on how many there are.
        let [one, other] = [(); 2].map(|()| Machine::Gpu(driver).hopper());
        alone::a_row_of_a_product_does_not_depend_on_the_batch(&one);
        layer::of_every_format_are_close_to_the_exact_result(&one);
        checks::products_are_close_to_the_exact_result(&[one, other]);
    }
    replay::repeats_what_was_recorded(driver);
    // Twice, as nothing may depend on the order in which threads happen to run.
    checks::close_to_the_exact_result(&[gpu, Machine::Gpu(driver)]);
}
