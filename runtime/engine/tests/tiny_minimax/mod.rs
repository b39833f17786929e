//! A tiny random MiniMax-Text-01: lightning attention in three layers, softmax attention in one.

#![allow(dead_code, clippy::unwrap_used)]

use crate::tiny_mixtral::{self, Tensor};
use serde_json::{Value, json};

/// config.json of the tiny model: 3 heads of 10 values, of which 4 are rotated.
pub fn config() -> Value {
    json!({
        "architectures": ["MiniMaxText01ForCausalLM"], "vocab_size": 61, "hidden_size": 24, "intermediate_size": 14,
        "num_hidden_layers": 4, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 10, "rotary_dim": 4,
        "attn_type_list": [0, 0, 1, 0], "num_local_experts": 4, "num_experts_per_tok": 2,
        "max_position_embeddings": 160, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": false,
        "hidden_act": "silu", "eos_token_id": 2, "postnorm": true, "shared_intermediate_size": 0,
        "layernorm_full_attention_alpha": 3.5565588200778455, "layernorm_full_attention_beta": 1.0,
        "layernorm_linear_attention_alpha": 3.5565588200778455, "layernorm_linear_attention_beta": 1.0,
        "layernorm_mlp_alpha": 3.5565588200778455, "layernorm_mlp_beta": 1.0
    })
}

/// Name and shape of every tensor that the config calls for.
pub fn shapes(config: &Value) -> Vec<(String, Vec<usize>)> {
    let n = |key: &str| config[key].as_u64().unwrap() as usize;
    let (hidden, width) = (n("hidden_size"), n("num_attention_heads") * n("head_dim"));
    let lightning = [
        ("qkv_proj", vec![3 * width, hidden]),
        ("output_gate", vec![width, hidden]),
        ("norm", vec![width]),
        ("out_proj", vec![hidden, width]),
    ];
    let mut shapes = Vec::new();
    // Everything but lightning attention is Mixtral's.
    for (name, shape) in tiny_mixtral::shapes(config) {
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
        match layer {
            Some((l, rest)) if rest.starts_with("self_attn") && config["attn_type_list"][number(l)] == 0 => {
                if rest.contains("q_proj") {
                    let name = |part: &str| format!("model.layers.{l}.self_attn.{part}.weight");
                    shapes.extend(lightning.iter().map(|(part, shape)| (name(part), shape.clone())));
                }
            }
            _ => shapes.push((name, shape)),
        }
    }
    shapes
}

fn number(text: &str) -> usize {
    text.parse().unwrap()
}

/// Random bf16 tensors.
pub fn tensors(config: &Value, seed: u64) -> Vec<Tensor> {
    tiny_mixtral::random_tensors(shapes(config), seed)
}
