//! Mixtral: every layer has experts.

use super::Shape;
use super::grouped::Grouped;
use super::keys::{EXPERTS, Keys, NoSizes, WIDTH};
use super::tensors::{Role, Tensors};

pub(super) fn read(keys: &Keys) -> Result<Shape, NoSizes> {
    let decoder = Grouped::read(keys)?;
    let width = keys.number(&["intermediate_size"], WIDTH)?;
    let experts = keys.number(&["num_local_experts", "num_experts"], EXPERTS)?;
    let per_token = keys.number(&["num_experts_per_tok"], EXPERTS)?;

    let mut tensors = Tensors::new(keys);
    tensors.ends(keys, decoder.vocabulary, decoder.hidden)?;
    decoder.projections(&mut tensors, decoder.layers);
    tensors.vectors(Role::Dense, 2 * decoder.layers, decoder.hidden);
    tensors.matrices(Role::Kept, decoder.layers, [experts, decoder.hidden]);
    tensors.feed_forward(Role::Expert, decoder.layers * experts, decoder.hidden, width);
    Ok(decoder.shape(tensors, [experts, per_token], width))
}
