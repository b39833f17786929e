//! Qwen-MoE, second and third generation. Both may have dense layers between those with experts; the second has biases
//! and a shared expert, the third norms over the heads of queries and keys.

use super::Shape;
use super::grouped::Grouped;
use super::keys::{EXPERTS, Keys, LAYERS, NoSizes, WIDTH};
use super::tensors::{Role, Tensors};

pub(super) fn read_2(keys: &Keys) -> Result<Shape, NoSizes> {
    let shared = keys.number(&["shared_expert_intermediate_size"], WIDTH)?;
    let bias = keys.flag_or("qkv_bias", true)?;
    read(keys, shared, |decoder, tensors| {
        if bias {
            tensors.vectors(Role::Dense, decoder.layers, decoder.queries() + 2 * decoder.keys());
        }
    })
}

pub(super) fn read_3(keys: &Keys) -> Result<Shape, NoSizes> {
    let bias = keys.flag("attention_bias")?;
    read(keys, 0, |decoder, tensors| {
        tensors.vectors(Role::Dense, 2 * decoder.layers, decoder.head_width);
        if bias {
            let width = decoder.queries() + 2 * decoder.keys() + decoder.hidden;
            tensors.vectors(Role::Dense, decoder.layers, width);
        }
    })
}

fn read(keys: &Keys, shared: u64, own: impl Fn(&Grouped, &mut Tensors)) -> Result<Shape, NoSizes> {
    let decoder = Grouped::read(keys)?;
    let (layers, hidden) = (decoder.layers, decoder.hidden);
    let width = keys.number(&["moe_intermediate_size"], WIDTH)?;
    let experts = keys.number(&["num_experts", "num_local_experts"], EXPERTS)?;
    let per_token = keys.number(&["num_experts_per_tok"], EXPERTS)?;
    let every = keys.count(&["decoder_sparse_step"], LAYERS)?.unwrap_or(1).max(1);
    let dense_ones = keys.numbers("mlp_only_layers")?;
    let sparse = |layer: &u64| (layer + 1).is_multiple_of(every) && !dense_ones.contains(layer);
    let sparse = (0..layers).filter(sparse).count() as u64;

    let mut tensors = Tensors::new(keys);
    tensors.ends(keys, decoder.vocabulary, hidden)?;
    decoder.projections(&mut tensors, layers);
    own(&decoder, &mut tensors);
    tensors.vectors(Role::Dense, 2 * layers, hidden);
    tensors.matrices(Role::Kept, sparse, [experts, hidden]);
    tensors.feed_forward(Role::Expert, sparse * experts, hidden, width);
    if shared > 0 {
        tensors.feed_forward(Role::Dense, sparse, hidden, shared);
        tensors.matrices(Role::Kept, sparse, [1, hidden]);
    }
    let mut dense_width = 0;
    if sparse < layers {
        dense_width = keys.number(&["intermediate_size"], WIDTH)?;
        tensors.feed_forward(Role::Dense, layers - sparse, hidden, dense_width);
    }
    let shape = decoder.shape(tensors, [experts, per_token], width);
    Ok(Shape { expert_layers: sparse, shared_width: shared, dense_width, ..shape })
}
