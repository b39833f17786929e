//! Multi-head latent attention (MLA) with a mixture of routed and shared experts: DeepSeek's form, under the names of
//! those who have it.

use super::keys::{CONTEXT, EXPERTS, HEAD_WIDTH, HEADS, HIDDEN, Keys, LAYERS, NoSizes, VOCABULARY, WIDTH};
use super::tensors::{Role, Tensors};
use super::{DraftLayer, Shape};

/// In what the families differ.
pub(super) struct Differences {
    /// Norms over the residual stream in one layer.
    pub(super) norms: u64,
    /// Whether the gate adds a bias to choose experts.
    pub(super) gate_bias: bool,
}

struct Decoder {
    hidden: u64,
    heads: u64,
    /// Width of compressed queries, if they are.
    query_rank: Option<u64>,
    /// Width of compressed keys and values.
    kv_rank: u64,
    nope: u64,
    rope: u64,
    value: u64,
    experts: u64,
    shared: u64,
    expert_width: u64,
    differences: Differences,
}

/// Layers before this one are dense; of the others, each `moe_layer_freq`-th has experts.
pub(super) fn read(keys: &Keys, differences: Differences) -> Result<Shape, NoSizes> {
    let layers = keys.number(&["num_hidden_layers"], LAYERS)?;
    let vocabulary = keys.number(&["vocab_size"], VOCABULARY)?;
    let context_length = keys.number(&["max_position_embeddings"], CONTEXT)?;
    let width = keys.number(&["intermediate_size"], WIDTH)?;
    let dense_first = keys.count(&["first_k_dense_replace", "num_dense_layers"], LAYERS)?.unwrap_or(0);
    let every = keys.count(&["moe_layer_freq"], LAYERS)?.unwrap_or(1).max(1);
    let drafts = keys.count(&["num_nextn_predict_layers", "num_mtp_layers"], LAYERS)?.unwrap_or(0);
    let per_token = keys.number(&["num_experts_per_tok"], EXPERTS)?;
    let decoder = Decoder::read(keys, differences)?;
    let hidden = decoder.hidden;
    let sparse = (dense_first..layers).filter(|layer| layer.is_multiple_of(every)).count() as u64;

    let mut tensors = Tensors::new(keys);
    tensors.ends(keys, vocabulary, hidden)?;
    decoder.attention(&mut tensors, layers);
    decoder.mixture(&mut tensors, sparse);
    tensors.feed_forward(Role::Dense, layers - sparse, hidden, width);

    // A layer that guesses ahead is like the last.
    let mut draft = Tensors::new(keys);
    draft.draft_module(hidden);
    decoder.attention(&mut draft, 1);
    match sparse > 0 {
        true => decoder.mixture(&mut draft, 1),
        false => draft.feed_forward(Role::Dense, 1, hidden, width),
    }
    let kv_width = decoder.kv_rank + decoder.rope;

    Ok(Shape {
        layers,
        expert_layers: sparse,
        experts: decoder.experts,
        experts_per_token: per_token,
        context_length,
        vocabulary,
        hidden,
        tensors,
        // The cache has the latent and the rotated part of the key, which all heads share.
        kv_values_per_token: layers * kv_width,
        window_values: 0,
        state_values: 0,
        snapshot_values: 0,
        attention_width: decoder.attention_width(),
        expert_width: decoder.expert_width,
        shared_width: decoder.shared * decoder.expert_width,
        dense_width: if sparse < layers { width } else { 0 },
        rotary: decoder.rope,
        draft: (drafts > 0).then_some(DraftLayer { tensors: draft, kv_values_per_token: kv_width }),
    })
}

impl Decoder {
    fn read(keys: &Keys, differences: Differences) -> Result<Self, NoSizes> {
        Ok(Self {
            hidden: keys.number(&["hidden_size"], HIDDEN)?,
            heads: keys.number(&["num_attention_heads"], HEADS)?,
            query_rank: keys.count(&["q_lora_rank", "attention_q_lora_dim"], WIDTH)?.filter(|rank| *rank > 0),
            kv_rank: keys.number(&["kv_lora_rank", "attention_kv_lora_dim"], WIDTH)?,
            nope: keys.number(&["qk_nope_head_dim", "attention_qk_dim"], HEAD_WIDTH)?,
            rope: keys.number(&["qk_rope_head_dim", "attention_qk_rope_dim"], HEAD_WIDTH)?,
            value: keys.number(&["v_head_dim", "attention_v_dim"], HEAD_WIDTH)?,
            experts: keys.number(&["n_routed_experts", "num_routed_experts"], EXPERTS)?,
            shared: keys.count(&["n_shared_experts", "num_shared_experts"], 1 << 8)?.unwrap_or(0),
            expert_width: keys.number(&["moe_intermediate_size"], WIDTH)?,
            differences,
        })
    }

    /// Attention and norms of `layers` layers.
    fn attention(&self, tensors: &mut Tensors, layers: u64) {
        let Self { hidden, heads, kv_rank, nope, rope, value, .. } = *self;
        let queries = heads * (nope + rope);
        match self.query_rank {
            None => tensors.matrices(Role::Dense, layers, [queries, hidden]),
            Some(rank) => {
                tensors.matrices(Role::Dense, layers, [rank, hidden]);
                tensors.vectors(Role::Dense, layers, rank);
                tensors.matrices(Role::Dense, layers, [queries, rank]);
            }
        }
        tensors.matrices(Role::Dense, layers, [kv_rank + rope, hidden]);
        tensors.vectors(Role::Dense, layers, kv_rank);
        tensors.matrices(Role::Kept, layers, [heads * (nope + value), kv_rank]);
        tensors.matrices(Role::Dense, layers, [hidden, heads * value]);
        tensors.vectors(Role::Dense, self.differences.norms * layers, hidden);
    }

    /// Of every head its query whole, cut, with the key matrix taken up, and joined, what it attended to, and its value;
    /// what goes through a matrix of each head is there head by head as well. Beside them both latents and the key.
    fn attention_width(&self) -> u64 {
        let Self { heads, kv_rank, nope, rope, value, .. } = *self;
        let of_head = 3 * (nope + rope + kv_rank) + 2 * value;
        heads * of_head + 2 * self.query_rank.unwrap_or(0) + 3 * kv_rank + 2 * rope
    }

    /// Gate, routed and shared experts of `layers` layers.
    fn mixture(&self, tensors: &mut Tensors, layers: u64) {
        tensors.matrices(Role::Kept, layers, [self.experts, self.hidden]);
        if self.differences.gate_bias {
            tensors.vectors(Role::Kept, layers, self.experts);
        }
        tensors.feed_forward(Role::Expert, layers * self.experts, self.hidden, self.expert_width);
        tensors.feed_forward(Role::Dense, layers, self.hidden, self.shared * self.expert_width);
    }
}
