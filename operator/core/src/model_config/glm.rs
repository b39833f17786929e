//! GLM-4-MoE: the first layers are dense, all others have routed and shared experts and a bias that helps to choose.

use super::Shape;
use super::grouped::Grouped;
use super::keys::{EXPERTS, Keys, LAYERS, NoSizes, WIDTH};
use super::tensors::{Role, Tensors};

pub(super) fn read(keys: &Keys) -> Result<Shape, NoSizes> {
    let decoder = Grouped::read(keys)?;
    let (layers, hidden) = (decoder.layers, decoder.hidden);
    let width = keys.number(&["moe_intermediate_size"], WIDTH)?;
    let experts = keys.number(&["n_routed_experts", "num_local_experts"], EXPERTS)?;
    let per_token = keys.number(&["num_experts_per_tok"], EXPERTS)?;
    let shared = width * keys.count(&["n_shared_experts"], 1 << 8)?.unwrap_or(1);
    let dense = keys.count(&["first_k_dense_replace"], LAYERS)?.unwrap_or(0).min(layers);
    let sparse = layers - dense;

    let mut tensors = Tensors::new(keys);
    tensors.ends(keys, decoder.vocabulary, hidden)?;
    decoder.projections(&mut tensors, layers);
    if keys.flag("attention_bias")? {
        tensors.vectors(Role::Dense, layers, decoder.queries() + 2 * decoder.keys());
    }
    if keys.flag("use_qk_norm")? {
        tensors.vectors(Role::Dense, 2 * layers, decoder.head_width);
    }
    tensors.vectors(Role::Dense, 2 * layers, hidden);
    tensors.matrices(Role::Kept, sparse, [experts, hidden]);
    tensors.vectors(Role::Kept, sparse, experts);
    tensors.feed_forward(Role::Expert, sparse * experts, hidden, width);
    tensors.feed_forward(Role::Dense, sparse, hidden, shared);
    let dense_width = if dense > 0 { keys.number(&["intermediate_size"], WIDTH)? } else { 0 };
    tensors.feed_forward(Role::Dense, dense, hidden, dense_width);
    Ok(Shape {
        expert_layers: sparse,
        shared_width: shared,
        dense_width,
        rotary: keys.rotary(decoder.head_width, 0.5)?,
        ..decoder.shape(tensors, [experts, per_token], width)
    })
}
