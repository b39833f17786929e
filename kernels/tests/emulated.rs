//! The CUDA kernels where there is no GPU: compiled as C++, with threads, shared memory and tensor cores emulated, over
//! the CPU's own list of cases.

mod cuda {
    #![allow(dead_code)] // each test binary uses a part
    pub mod alone;
    pub mod attention;
    pub mod checks;
    pub mod columns;
    pub mod device;
    pub mod emulation;
    pub mod experts;
    pub mod faults;
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

use cuda::emulation::Emulation;
use cuda::machine::Machine;
use cuda::{alone, checks, columns, faults, layer, quantized, replay, rounded, sample};
use std::sync::Arc;

#[test]
fn kernels_are_close_to_the_exact_result() {
    checks::close_to_the_exact_result(&[false, true].map(Machine::emulated));
}

#[test]
fn products_of_hopper_are_close_to_the_exact_result() {
    checks::products_are_close_to_the_exact_result(
        &[false, true].map(|backwards| Machine::emulated(backwards).hopper()),
    );
    layer::of_every_format_are_close_to_the_exact_result(&Machine::emulated(true).hopper());
}

#[test]
fn layers_of_every_format_are_close_to_the_exact_result() {
    layer::of_every_format_are_close_to_the_exact_result(&Machine::emulated(false));
}

#[test]
fn tokens_are_drawn_by_the_rule() {
    for backwards in [false, true] {
        sample::tokens_are_drawn_by_the_rule(&Machine::emulated(backwards));
    }
}

#[test]
fn columns_are_copied_and_changed_exactly() {
    columns::are_copied_and_changed_exactly(&Machine::emulated(false));
}

#[test]
fn what_is_written_as_bf16_is_the_f32_result_rounded() {
    rounded::what_is_written_is_the_f32_result_rounded(&Machine::emulated(false));
}

#[test]
fn weights_are_quantized_and_made_as_on_the_cpu() {
    for backwards in [false, true] {
        quantized::weights_are_as_on_the_cpu(&Machine::emulated(backwards));
    }
}

#[test]
fn a_row_of_a_product_does_not_depend_on_the_batch() {
    let machine = Machine::emulated(false);
    alone::a_row_of_a_product_does_not_depend_on_the_batch(&machine);
    alone::a_row_of_a_product_does_not_depend_on_the_batch(&machine.hopper());
}

#[test]
fn attention_does_not_depend_on_chunks_or_neighbours() {
    alone::attention_does_not_depend_on_chunks_or_neighbours(&Machine::emulated(false));
}

#[test]
fn attention_over_many_keys_has_the_same_bits_in_every_form() {
    alone::attention_over_many_keys_has_the_same_bits_in_every_form(&Machine::emulated(false));
}

#[test]
fn a_graph_repeats_what_was_recorded() {
    replay::repeats_what_was_recorded(&Arc::new(Emulation::load(false)));
    replay::strict_in_emulation();
}

#[test]
fn faults_of_kernels_are_noticed() {
    faults::of_kernels_are_noticed();
}
