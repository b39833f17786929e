//! GLM-4-MoE: the first layers are dense, all others have routed and shared experts and a bias that helps to choose.

use super::grouped::Grouped;
use super::keys::{EXPERTS, Keys, LAYERS, NoSizes, WIDTH};
use super::tensors::{Role, Tensors};
use super::{DraftLayer, Shape};

pub(super) fn read(keys: &Keys) -> Result<Shape, NoSizes> {
    let decoder = Grouped::read(keys)?;
    let (layers, hidden) = (decoder.layers, decoder.hidden);
    let width = keys.number(&["moe_intermediate_size"], WIDTH)?;
    let experts = keys.number(&["n_routed_experts", "num_local_experts"], EXPERTS)?;
    let per_token = keys.number(&["num_experts_per_tok"], EXPERTS)?;
    let shared = width * keys.count(&["n_shared_experts"], 1 << 8)?.unwrap_or(1);
    let dense = keys.count(&["first_k_dense_replace"], LAYERS)?.unwrap_or(0).min(layers);
    let sparse = layers - dense;

    let [biases, norms] = [keys.flag("attention_bias")?, keys.flag("use_qk_norm")?];
    let attention = |tensors: &mut Tensors, layers| {
        decoder.projections(tensors, layers);
        if biases {
            tensors.vectors(Role::Dense, layers, decoder.queries() + 2 * decoder.keys());
        }
        if norms {
            tensors.vectors(Role::Dense, 2 * layers, decoder.head_width);
        }
        tensors.vectors(Role::Dense, 2 * layers, hidden);
    };
    let mixture = |tensors: &mut Tensors, layers| {
        tensors.matrices(Role::Kept, layers, [experts, hidden]);
        tensors.vectors(Role::Kept, layers, experts);
        tensors.feed_forward(Role::Expert, layers * experts, hidden, width);
        tensors.feed_forward(Role::Dense, layers, hidden, shared);
    };

    let mut tensors = Tensors::new(keys);
    tensors.ends(keys, decoder.vocabulary, hidden)?;
    attention(&mut tensors, layers);
    mixture(&mut tensors, sparse);
    let dense_width = if dense > 0 { keys.number(&["intermediate_size"], WIDTH)? } else { 0 };
    tensors.feed_forward(Role::Dense, dense, hidden, dense_width);
    // A layer that guesses ahead is like the last.
    let drafts = keys.count(&["num_nextn_predict_layers"], LAYERS)?.unwrap_or(0);
    let mut draft = Tensors::new(keys);
    draft.draft_module(hidden);
    attention(&mut draft, 1);
    mixture(&mut draft, 1);
    Ok(Shape {
        expert_layers: sparse,
        draft: (drafts > 0).then_some(DraftLayer { tensors: draft, kv_values_per_token: 2 * decoder.keys() }),
        shared_width: shared,
        dense_width,
        rotary: keys.rotary(decoder.head_width, 0.5)?,
        ..decoder.shape(tensors, [experts, per_token], width)
    })
}
