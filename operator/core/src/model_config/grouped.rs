//! Attention with grouped query heads, and what families that have it share.

use super::Shape;
use super::keys::{CONTEXT, HEAD_WIDTH, HEADS, HIDDEN, Keys, LAYERS, NoSizes, VOCABULARY, quotient};
use super::tensors::{Role, Tensors};

/// The outer form of a decoder and of its attention.
pub(super) struct Grouped {
    pub(super) layers: u64,
    pub(super) hidden: u64,
    pub(super) vocabulary: u64,
    pub(super) context_length: u64,
    pub(super) heads: u64,
    pub(super) kv_heads: u64,
    pub(super) head_width: u64,
}

impl Grouped {
    pub(super) fn read(keys: &Keys) -> Result<Self, NoSizes> {
        let hidden = keys.number(&["hidden_size"], HIDDEN)?;
        let heads = keys.number(&["num_attention_heads"], HEADS)?;
        let kv_heads = match keys.count(&["num_key_value_heads"], HEADS)? {
            None => heads,
            Some(kv_heads) => {
                quotient(("num_attention_heads", heads), ("num_key_value_heads", kv_heads))?;
                kv_heads
            }
        };
        let head_width = match keys.count(&["head_dim"], HEAD_WIDTH)? {
            Some(0) | None => quotient(("hidden_size", hidden), ("num_attention_heads", heads))?,
            Some(width) => width,
        };
        Ok(Self {
            layers: keys.number(&["num_hidden_layers"], LAYERS)?,
            hidden,
            vocabulary: keys.number(&["vocab_size"], VOCABULARY)?,
            context_length: keys.number(&["max_position_embeddings"], CONTEXT)?,
            heads,
            kv_heads,
            head_width,
        })
    }

    /// Values of all query heads.
    pub(super) fn queries(&self) -> u64 {
        self.heads * self.head_width
    }

    /// Values of all key heads, or of all value heads.
    pub(super) fn keys(&self) -> u64 {
        self.kv_heads * self.head_width
    }

    /// The four projections of `layers` layers.
    pub(super) fn projections(&self, tensors: &mut Tensors, layers: u64) {
        tensors.matrices(Role::Dense, layers, [self.queries(), self.hidden]);
        tensors.matrices(Role::Dense, 2 * layers, [self.keys(), self.hidden]);
        tensors.matrices(Role::Dense, layers, [self.hidden, self.queries()]);
    }

    /// A model all of whose layers have this attention and these experts, with `tensors` so far.
    pub(super) fn shape(&self, tensors: Tensors, experts: [u64; 2], expert_width: u64) -> Shape {
        let [experts, experts_per_token] = experts;
        Shape {
            layers: self.layers,
            expert_layers: self.layers,
            experts,
            experts_per_token,
            context_length: self.context_length,
            vocabulary: self.vocabulary,
            hidden: self.hidden,
            tensors,
            kv_values_per_token: self.layers * 2 * self.keys(),
            window_values: 0,
            state_values: 0,
            snapshot_values: 0,
            attention_width: 2 * self.queries() + 2 * self.keys(),
            expert_width,
            shared_width: 0,
            dense_width: 0,
            rotary: self.head_width,
            draft: None,
        }
    }
}
