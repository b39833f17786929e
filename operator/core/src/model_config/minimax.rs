//! MiniMax-Text-01 and M1: most layers have lightning attention, whose state does not grow; the others have a KV cache.

use super::Shape;
use super::grouped::Grouped;
use super::keys::{EXPERTS, Keys, NoSizes, WIDTH, for_each_layer};
use super::tensors::{Role, Tensors};

/// Tokens whose keys and values lightning attention keeps beside its sums (kernels/src/cpu/lightning.rs).
const BLOCK: u64 = 16;

/// As released: gates are f32, all else is bf16.
pub(super) fn released(keys: &Keys) -> Result<Shape, NoSizes> {
    read(keys, Role::KeptWide)
}

/// As transformers writes it: all of one format.
pub(super) fn transformers(keys: &Keys) -> Result<Shape, NoSizes> {
    read(keys, Role::Kept)
}

fn read(keys: &Keys, gate: Role) -> Result<Shape, NoSizes> {
    let decoder = Grouped::read(keys)?;
    let (layers, hidden, heads) = (decoder.layers, decoder.hidden, decoder.queries());
    let width = keys.number(&["intermediate_size"], WIDTH)?;
    let shared = keys.count(&["shared_intermediate_size"], WIDTH)?.unwrap_or(0);
    let experts = keys.number(&["num_local_experts"], EXPERTS)?;
    let per_token = keys.number(&["num_experts_per_tok"], EXPERTS)?;
    let softmax = softmax_layers(keys, layers)?;
    let lightning = layers - softmax;

    let mut tensors = Tensors::new(keys);
    tensors.ends(keys, decoder.vocabulary, hidden)?;
    decoder.projections(&mut tensors, softmax);
    // q, k, v in one; the output gate; out; and a norm over all heads.
    tensors.matrices(Role::Dense, lightning, [3 * heads, hidden]);
    tensors.matrices(Role::Dense, lightning, [heads, hidden]);
    tensors.matrices(Role::Dense, lightning, [hidden, heads]);
    tensors.vectors(Role::Dense, lightning, heads);
    tensors.vectors(Role::Dense, 2 * layers, hidden);
    tensors.matrices(gate, layers, [experts, hidden]);
    tensors.feed_forward(Role::Expert, layers * experts, hidden, width);
    if shared > 0 {
        tensors.feed_forward(Role::Dense, layers, hidden, shared);
        tensors.matrices(Role::Kept, layers, [1, hidden]);
    }
    let whole = decoder.shape(tensors, [experts, per_token], width);
    Ok(Shape {
        kv_values_per_token: softmax * 2 * decoder.keys(),
        state_values: lightning * heads * (decoder.head_width + 2 * BLOCK),
        snapshot_values: lightning * heads * decoder.head_width,
        // Of lightning q, k, v, the gate, what was attended and its norm: always more than of softmax.
        attention_width: if lightning > 0 { 6 * heads } else { whole.attention_width },
        shared_width: shared,
        rotary: if softmax > 0 { keys.rotary(decoder.head_width, 1.0)? } else { 0 },
        ..whole
    })
}

/// How many layers have softmax attention: 1 in `attn_type_list`, or `full_attention` in the newer `layer_types`.
fn softmax_layers(keys: &Keys, layers: u64) -> Result<u64, NoSizes> {
    let names = keys.texts("layer_types")?;
    if !names.is_empty() {
        let names = for_each_layer("layer_types", names, layers)?;
        return Ok(names.iter().filter(|name| **name == "full_attention").count() as u64);
    }
    let kinds = keys.numbers("attn_type_list")?;
    if kinds.is_empty() {
        return Err(NoSizes::Missing { key: "attn_type_list" });
    }
    let kinds = for_each_layer("attn_type_list", kinds, layers)?;
    // Another number is another attention, which nobody knows here.
    if let Some(value) = kinds.iter().copied().find(|kind| *kind > 1) {
        return Err(NoSizes::OutOfRange { key: "attn_type_list", value, least: 0, limit: 1 });
    }
    Ok(kinds.iter().filter(|kind| **kind == 1).count() as u64)
}
