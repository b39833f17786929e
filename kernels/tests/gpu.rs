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

use coterie_kernels::cuda::driver::Driver;
use cuda::machine::Machine;
use cuda::{alone, checks, columns, layer, quantized, replay, rounded, sample};
use std::sync::Arc;

/// Runs a check on the GPU. Each is a test of its own, so that one that fails, or leaves the GPU unusable, hides no other:
/// `run` in a pack gives each a process.
fn on_the_gpu(check: impl FnOnce(Machine, &'static Arc<Driver>)) {
    let cubins = std::env::var_os("COTERIE_CUBINS").expect("COTERIE_CUBINS is the folder of cubins");
    let Machine::Gpu(driver) = Machine::gpu(cubins.as_ref()) else { return };
    println!("kernels of {}", driver.architecture());
    check(Machine::Gpu(driver), driver);
}

/// The same with the products that Hopper has instructions for; elsewhere there is nothing to check.
fn on_hopper(check: impl FnOnce([Machine; 2])) {
    on_the_gpu(|_, driver| match driver.has_warpgroups() {
        true => check([(); 2].map(|()| Machine::Gpu(driver).hopper())),
        false => println!("SKIPPED: this GPU has no wgmma"),
    });
}

macro_rules! on_the_gpu {
    ($($run:ident $name:ident: $check:expr;)+) => {$(
        #[test]
        #[ignore = "needs a GPU, and COTERIE_CUBINS, the folder that the test cubins wrote; cargo xtask gpu runs it"]
        fn $name() {
            $run($check);
        }
    )+};
}

on_the_gpu! {
    // Twice, as nothing may depend on the order in which threads happen to run.
    on_the_gpu a_every_kernel_is_close_to_the_exact_result:
        |gpu, driver| checks::close_to_the_exact_result(&[gpu, Machine::Gpu(driver)]);
    on_the_gpu b_products_of_every_format_are_close_to_the_exact_result:
        |gpu, _| layer::of_every_format_are_close_to_the_exact_result(&gpu);
    on_the_gpu c_columns_are_copied_and_changed_exactly:
        |gpu, _| columns::are_copied_and_changed_exactly(&gpu);
    on_the_gpu d_weights_are_quantized_as_on_the_cpu: |gpu, _| quantized::weights_are_as_on_the_cpu(&gpu);
    on_the_gpu e_what_is_written_is_the_f32_result_rounded:
        |gpu, _| rounded::what_is_written_is_the_f32_result_rounded(&gpu);
    on_the_gpu f_tokens_are_drawn_by_the_rule: |gpu, _| sample::tokens_are_drawn_by_the_rule(&gpu);
    on_the_gpu g_a_graph_repeats_what_was_recorded: |_, driver| replay::repeats_what_was_recorded(driver);
    on_the_gpu h_a_row_of_a_product_does_not_depend_on_the_batch:
        |gpu, _| alone::a_row_of_a_product_does_not_depend_on_the_batch(&gpu);
    on_the_gpu i_attention_does_not_depend_on_chunks_or_neighbours:
        |gpu, _| alone::attention_does_not_depend_on_chunks_or_neighbours(&gpu);
    on_the_gpu j_attention_over_many_keys_has_the_same_bits_in_every_form:
        |gpu, _| alone::attention_over_many_keys_has_the_same_bits_in_every_form(&gpu);
    on_hopper hopper_a_products_are_close_to_the_exact_result:
        |machines| checks::products_are_close_to_the_exact_result(&machines);
    on_hopper hopper_b_products_of_every_format_are_close_to_the_exact_result:
        |[one, _]| layer::of_every_format_are_close_to_the_exact_result(&one);
    // What the emulation takes for granted: a column of a warpgroup's product does not depend on how many there are.
    on_hopper hopper_c_a_row_of_a_product_does_not_depend_on_the_batch:
        |[one, _]| alone::a_row_of_a_product_does_not_depend_on_the_batch(&one);
}
