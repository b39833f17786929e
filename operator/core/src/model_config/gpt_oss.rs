//! GPT-OSS: biases everywhere, and a learned sink for each head. Every other layer attends to a window only; the cache
//! keeps all tokens all the same.

use super::Shape;
use super::grouped::Grouped;
use super::keys::{EXPERTS, Keys, NoSizes, WIDTH};
use super::tensors::{Role, Tensors};

pub(super) fn read(keys: &Keys) -> Result<Shape, NoSizes> {
    let decoder = Grouped::read(keys)?;
    let (layers, hidden) = (decoder.layers, decoder.hidden);
    let width = keys.number(&["intermediate_size"], WIDTH)?;
    let experts = keys.number(&["num_local_experts", "num_experts"], EXPERTS)?;
    let per_token = keys.number(&["num_experts_per_tok", "experts_per_token"], EXPERTS)?;

    let mut tensors = Tensors::new(keys);
    tensors.ends(keys, decoder.vocabulary, hidden)?;
    decoder.projections(&mut tensors, layers);
    tensors.vectors(Role::Dense, layers, decoder.queries() + 2 * decoder.keys() + hidden);
    tensors.vectors(Role::Dense, layers, decoder.heads);
    tensors.vectors(Role::Dense, 2 * layers, hidden);
    tensors.matrices(Role::Kept, layers, [experts, hidden]);
    tensors.vectors(Role::Kept, layers, experts);
    let packed = keys.quantization_method().as_deref() == Some("mxfp4");
    let role = if packed { Role::PackedExpert } else { Role::Expert };
    tensors.feed_forward(role, layers * experts, hidden, width);
    tensors.vectors(Role::Expert, layers * experts, 2 * width + hidden);
    Ok(decoder.shape(tensors, [experts, per_token], width))
}
