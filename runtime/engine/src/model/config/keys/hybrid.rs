//! The keys of models in which linear attention and softmax attention take turns.

use super::{Keys, float, known};
use crate::model::config::plan::Blend;
use crate::model::config::rule::ConfigRule;

impl Keys {
    /// Of each layer, whether its attention is softmax attention rather than linear: by name in `layer_types`, by 1 and
    /// 0 in `attn_type_list`.
    pub fn softmax_layers(&self) -> Result<Vec<bool>, ConfigRule> {
        let (key, kinds) = match (&self.layer_types, &self.attn_type_list) {
            (Some(names), _) => {
                let kind = |name: &String| match name.as_str() {
                    "full_attention" => Ok(true),
                    name => known("layer_types", &Some(name), "linear_attention").map(|()| false),
                };
                ("layer_types", names.iter().map(kind).collect::<Result<Vec<_>, _>>()?)
            }
            (None, Some(numbers)) => {
                let kind = |number: &u64| match number {
                    1 => Ok(true),
                    number => known("attn_type_list", &Some(number), "0").map(|()| false),
                };
                ("attn_type_list", numbers.iter().map(kind).collect::<Result<Vec<_>, _>>()?)
            }
            (None, None) => return Err(ConfigRule::Missing { key: "attn_type_list" }),
        };
        let layers = self.layers()?;
        match kinds.len() == layers {
            true => Ok(kinds),
            false => Err(ConfigRule::ListLength { key, found: kinds.len(), layers }),
        }
    }

    /// How softmax attention, linear attention and experts come back to the residual stream. 1 is what is not written.
    pub fn blends(&self) -> Result<[Blend; 3], ConfigRule> {
        let factor = |key, value| float(key, value, 1.0, -1e6..1e6, "within ±1,000,000");
        Ok([
            Blend {
                alpha: factor("layernorm_full_attention_alpha", self.layernorm_full_attention_alpha)?,
                beta: factor("layernorm_full_attention_beta", self.layernorm_full_attention_beta)?,
            },
            Blend {
                alpha: factor("layernorm_linear_attention_alpha", self.layernorm_linear_attention_alpha)?,
                beta: factor("layernorm_linear_attention_beta", self.layernorm_linear_attention_beta)?,
            },
            Blend {
                alpha: factor("layernorm_mlp_alpha", self.layernorm_mlp_alpha)?,
                beta: factor("layernorm_mlp_beta", self.layernorm_mlp_beta)?,
            },
        ])
    }
}
