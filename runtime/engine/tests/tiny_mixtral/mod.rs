//! A tiny random Mixtral, written as a model folder.

#![allow(dead_code, clippy::unwrap_used)]

use half::bf16;
use serde_json::{Value, json};
use std::path::Path;

/// One tensor to write: name, format, shape, bytes.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// A safetensors file of `tensors`, one behind the other.
pub fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut at = 0;
    for Tensor { name, dtype, shape, bytes } in tensors {
        let offsets = [at, at + bytes.len()];
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        at += bytes.len();
    }
    let bytes = tensors.iter().flat_map(|tensor| tensor.bytes.clone()).collect::<Vec<u8>>();
    file(&Value::Object(header).to_string(), &bytes)
}

/// A safetensors file of a header and data that need not agree. Real writers pad the header to 8 bytes.
pub fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let padded = format!("{header:<width$}", width = header.len().next_multiple_of(8));
    [&(padded.len() as u64).to_le_bytes()[..], padded.as_bytes(), data].concat()
}

/// config.json of the tiny model.
pub fn config() -> Value {
    json!({
        "architectures": ["MixtralForCausalLM"], "vocab_size": 61, "hidden_size": 24, "intermediate_size": 20,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6,
        "num_local_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 160, "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}, "tie_word_embeddings": false,
        "hidden_act": "silu", "eos_token_id": 2
    })
}

/// Name and shape of every tensor that the config calls for.
pub fn shapes(config: &Value) -> Vec<(String, Vec<usize>)> {
    let n = |key: &str| config[key].as_u64().unwrap() as usize;
    let (hidden, inter, vocabulary) = (n("hidden_size"), n("intermediate_size"), n("vocab_size"));
    let (q, kv) = (n("num_attention_heads") * n("head_dim"), n("num_key_value_heads") * n("head_dim"));
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
        ("lm_head.weight".to_owned(), vec![vocabulary, hidden]),
    ];
    for l in 0..n("num_hidden_layers") {
        let mut add = |name: &str, shape: &[usize]| {
            shapes.push((format!("model.layers.{l}.{name}.weight"), shape.to_vec()));
        };
        add("input_layernorm", &[hidden]);
        add("post_attention_layernorm", &[hidden]);
        add("self_attn.q_proj", &[q, hidden]);
        add("self_attn.k_proj", &[kv, hidden]);
        add("self_attn.v_proj", &[kv, hidden]);
        add("self_attn.o_proj", &[hidden, q]);
        add("block_sparse_moe.gate", &[n("num_local_experts"), hidden]);
        for e in 0..n("num_local_experts") {
            add(&format!("block_sparse_moe.experts.{e}.w1"), &[inter, hidden]);
            add(&format!("block_sparse_moe.experts.{e}.w2"), &[hidden, inter]);
            add(&format!("block_sparse_moe.experts.{e}.w3"), &[inter, hidden]);
        }
    }
    shapes
}

/// Random bf16 tensors, large enough that the distributions are peaked; norms around 1.
pub fn tensors(config: &Value, seed: u64) -> Vec<Tensor> {
    let mut state = seed;
    shapes(config)
        .into_iter()
        .map(|(name, shape)| {
            let centre = if name.contains("norm") { 1.0 } else { 0.0 };
            let bytes = (0..shape.iter().product())
                .flat_map(|_| bf16::from_f32(centre + 0.9 * (random(&mut state) - 0.5)).to_le_bytes())
                .collect();
            Tensor { name, dtype: "BF16", shape, bytes }
        })
        .collect()
}

/// splitmix64, in 0..1.
pub fn random(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
}

/// Writes a whole model folder.
pub fn write(dir: &Path, config: &Value, tensors: &[Tensor]) {
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    std::fs::write(dir.join("model.safetensors"), safetensors(tensors)).unwrap();
}
