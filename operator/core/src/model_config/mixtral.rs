//! Mixtral: every layer has experts. The one family that the runtime serves: its figures are those of `coterie inspect`.

use super::Shape;
use super::grouped::Grouped;
use super::keys::{EXPERTS, Keys, NoSizes, WIDTH};
use super::tensors::{Role, Tensors};

pub(super) fn read(keys: &Keys) -> Result<Shape, NoSizes> {
    let mut decoder = Grouped::read(keys)?;
    // A window that is shorter than the context cannot be served beyond itself.
    if let Some(window) = keys.count(&["sliding_window"], u64::MAX)?.filter(|window| *window > 0) {
        decoder.context_length = decoder.context_length.min(window);
    }
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
