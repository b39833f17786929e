//! GPT-OSS: biases everywhere, a learned sink for each head, and every other layer attends to a window only.

use super::Shape;
use super::grouped::Grouped;
use super::keys::{CONTEXT, EXPERTS, Keys, NoSizes, WIDTH, for_each_layer};
use super::tensors::{Role, Tensors};

pub(super) fn read(keys: &Keys) -> Result<Shape, NoSizes> {
    let decoder = Grouped::read(keys)?;
    let (layers, hidden) = (decoder.layers, decoder.hidden);
    let width = keys.number(&["intermediate_size"], WIDTH)?;
    let experts = keys.number(&["num_local_experts", "num_experts"], EXPERTS)?;
    let per_token = keys.number(&["num_experts_per_tok", "experts_per_token"], EXPERTS)?;
    let window = keys.count(&["sliding_window"], CONTEXT)?.unwrap_or(0);
    let windowed = windowed_layers(keys, layers, window)?;

    let mut tensors = Tensors::new(keys);
    tensors.ends(keys, decoder.vocabulary, hidden)?;
    decoder.projections(&mut tensors, layers);
    tensors.vectors(Role::Dense, layers, decoder.queries() + 2 * decoder.keys() + hidden);
    tensors.vectors(Role::Dense, layers, decoder.heads);
    tensors.vectors(Role::Dense, 2 * layers, hidden);
    tensors.matrices(Role::Kept, layers, [experts, hidden]);
    tensors.vectors(Role::Kept, layers, experts);
    tensors.feed_forward(Role::Expert, layers * experts, hidden, width);
    tensors.vectors(Role::Expert, layers * experts, 2 * width + hidden);
    let cached = 2 * decoder.keys();
    Ok(Shape {
        kv_values_per_token: (layers - windowed) * cached,
        window_values: windowed * window.min(decoder.context_length) * cached,
        ..decoder.shape(tensors, [experts, per_token], width)
    })
}

/// How many layers attend to a window only: those that `layer_types` names so, else every other.
fn windowed_layers(keys: &Keys, layers: u64, window: u64) -> Result<u64, NoSizes> {
    let names = keys.texts("layer_types")?;
    match (window, names.is_empty()) {
        (0, _) => Ok(0),
        (_, true) => Ok(layers.div_ceil(2)),
        (_, false) => {
            let names = for_each_layer("layer_types", names, layers)?;
            Ok(names.iter().filter(|name| **name == "sliding_attention").count() as u64)
        }
    }
}
