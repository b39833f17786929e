//! Tiny random models of every family, each with what is special about it: configurations, and the tensors that the
//! published code would look for. Written here a second time, so that the engine's own names are tested.

#![allow(dead_code, clippy::unwrap_used)]

mod latent;

use crate::tiny_mixtral::{self, Tensor, write};
use half::bf16;
use serde_json::{Value, json};
use std::path::Path;

/// Of every family a name and a configuration.
pub fn configs() -> Vec<(&'static str, Value)> {
    let with = |architecture: &str, more: Value| {
        let mut config = json!({
            "architectures": [architecture], "vocab_size": 61, "hidden_size": 24, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 8, "num_hidden_layers": 3, "num_experts_per_tok": 2,
            "max_position_embeddings": 160, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "hidden_act": "silu",
            "eos_token_id": 2
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    };
    let yarn = json!({
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 40
    });
    let mut configs = vec![
        ("Mixtral", tiny_mixtral::config()),
        (
            "Mixtral with a window",
            with(
                "MixtralForCausalLM",
                json!({"intermediate_size": 20, "num_local_experts": 3, "sliding_window": 19}),
            ),
        ),
        (
            "Qwen3-MoE",
            with(
                "Qwen3MoeForCausalLM",
                json!({"intermediate_size": 20, "moe_intermediate_size": 12, "num_experts": 5, "mlp_only_layers": [1],
                    "norm_topk_prob": true, "attention_bias": true, "rope_parameters": yarn}),
            ),
        ),
        (
            "Qwen2-MoE",
            with(
                "Qwen2MoeForCausalLM",
                json!({"intermediate_size": 20, "moe_intermediate_size": 12, "num_experts": 5,
                    "shared_expert_intermediate_size": 14, "decoder_sparse_step": 3, "num_hidden_layers": 4}),
            ),
        ),
        (
            "OLMoE",
            with(
                "OlmoeForCausalLM",
                json!({"intermediate_size": 10, "num_experts": 7, "num_experts_per_tok": 3, "head_dim": null,
                    "tie_word_embeddings": true}),
            ),
        ),
        (
            "GLM-4-MoE",
            with(
                "Glm4MoeForCausalLM",
                json!({"intermediate_size": 20, "moe_intermediate_size": 10, "n_routed_experts": 8, "n_group": 4,
                    "topk_group": 2, "n_shared_experts": 2, "first_k_dense_replace": 1, "use_qk_norm": true,
                    "attention_bias": true, "routed_scaling_factor": 1.5}),
            ),
        ),
        (
            "MiniMax-M2",
            with(
                "MiniMaxM2ForCausalLM",
                json!({"intermediate_size": 14, "num_local_experts": 5, "rotary_dim": 4, "num_key_value_heads": 1}),
            ),
        ),
        (
            "MiniMax-Text-01",
            with(
                "MiniMaxText01ForCausalLM",
                json!({"intermediate_size": 14, "num_local_experts": 4, "num_attention_heads": 3,
                    "num_key_value_heads": 1, "head_dim": 10, "rotary_dim": 4, "num_hidden_layers": 4,
                    "attn_type_list": [0, 0, 1, 0], "postnorm": true, "layernorm_full_attention_alpha": 3.5,
                    "layernorm_linear_attention_alpha": 3.6, "layernorm_mlp_alpha": 3.7,
                    "layernorm_mlp_beta": 0.9}),
            ),
        ),
        (
            "GPT-OSS",
            with(
                "GptOssForCausalLM",
                json!({"intermediate_size": 16, "num_local_experts": 4, "sliding_window": 9, "swiglu_limit": 0.8,
                    "rope_parameters": yarn}),
            ),
        ),
    ];
    configs.extend(latent::configs());
    configs
}

/// Writes a model folder of random tensors.
pub fn write_random(dir: &Path, config: &Value, seed: u64) {
    write(dir, config, &tensors(config, seed));
}

/// The tensors of a configuration.
pub fn tensors(config: &Value, seed: u64) -> Vec<Tensor> {
    let mut state = seed;
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let centre = if name.contains("norm") { 1.0 } else { 0.0 };
        let values = (0..shape.iter().product()).flat_map(|_| {
            bf16::from_f32(centre + 0.9 * (tiny_mixtral::random(&mut state) - 0.5)).to_le_bytes()
        });
        Tensor { name, dtype: "BF16", bytes: values.collect(), shape }
    };
    shapes(config).into_iter().map(tensor).collect()
}

/// Name and shape of every tensor that the config calls for.
fn shapes(config: &Value) -> Vec<(String, Vec<usize>)> {
    let n = |key: &str| config[key].as_u64().unwrap() as usize;
    let (vocabulary, hidden) = (n("vocab_size"), n("hidden_size"));
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    if config["tie_word_embeddings"] != true {
        shapes.push(("lm_head.weight".to_owned(), vec![vocabulary, hidden]));
    }
    for l in 0..n("num_hidden_layers") {
        let layer = layer(config, l).into_iter();
        shapes.extend(layer.map(|(name, shape)| (format!("model.layers.{l}.{name}"), shape)));
    }
    if config["num_nextn_predict_layers"] == 1 {
        let layers = n("num_hidden_layers");
        let module = [
            ("enorm", vec![hidden]),
            ("hnorm", vec![hidden]),
            ("eh_proj", vec![hidden, 2 * hidden]),
            ("shared_head.norm", vec![hidden]),
        ];
        let module = module.into_iter().map(|(name, shape)| (format!("{name}.weight"), shape));
        let whole = layer(config, layers).into_iter().chain(module);
        shapes.extend(whole.map(|(name, shape)| (format!("model.layers.{layers}.{name}"), shape)));
    }
    shapes
}

fn layer(config: &Value, l: usize) -> Vec<(String, Vec<usize>)> {
    if let Some(shapes) = latent::layer(config, l) {
        return shapes;
    }
    let n = |key: &str| config[key].as_u64().unwrap_or(0) as usize;
    let family = config["architectures"][0].as_str().unwrap();
    let (hidden, inter) = (n("hidden_size"), n("intermediate_size"));
    let head_dim = config["head_dim"].as_u64().map_or(hidden / n("num_attention_heads"), |d| d as usize);
    let (q, kv) = (n("num_attention_heads") * head_dim, n("num_key_value_heads") * head_dim);
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let mut add = |name: &str, shape: &[usize]| shapes.push((name.to_owned(), shape.to_vec()));

    add("input_layernorm.weight", &[hidden]);
    add("post_attention_layernorm.weight", &[hidden]);
    let lightning = config["attn_type_list"][l] == 0;
    if lightning {
        add("self_attn.qkv_proj.weight", &[3 * q, hidden]);
        add("self_attn.output_gate.weight", &[q, hidden]);
        add("self_attn.norm.weight", &[q]);
        add("self_attn.out_proj.weight", &[hidden, q]);
    }
    let projections = [("q", [q, hidden]), ("k", [kv, hidden]), ("v", [kv, hidden]), ("o", [hidden, q])];
    for (name, shape) in projections.into_iter().filter(|_| !lightning) {
        add(&format!("self_attn.{name}_proj.weight"), &shape);
        let biased = match family {
            "Qwen2MoeForCausalLM" => name != "o",
            "Glm4MoeForCausalLM" => name != "o" && config["attention_bias"] == true,
            "GptOssForCausalLM" => true,
            _ => config["attention_bias"] == true,
        };
        if biased {
            add(&format!("self_attn.{name}_proj.bias"), &shape[..1]);
        }
    }
    match family {
        "Qwen3MoeForCausalLM" | "Glm4MoeForCausalLM" => {
            add("self_attn.q_norm.weight", &[head_dim]);
            add("self_attn.k_norm.weight", &[head_dim]);
        }
        "OlmoeForCausalLM" | "MiniMaxM2ForCausalLM" => {
            add("self_attn.q_norm.weight", &[q]);
            add("self_attn.k_norm.weight", &[kv]);
        }
        "GptOssForCausalLM" => add("self_attn.sinks", &[n("num_attention_heads")]),
        _ => {}
    }

    let mut network = |prefix: &str, names: [&str; 3], width: usize| {
        add(&format!("{prefix}.{}.weight", names[0]), &[width, hidden]);
        add(&format!("{prefix}.{}.weight", names[1]), &[hidden, width]);
        add(&format!("{prefix}.{}.weight", names[2]), &[width, hidden]);
    };
    let (old, new) = (["w1", "w2", "w3"], ["gate_proj", "down_proj", "up_proj"]);
    let dense = match family {
        "Glm4MoeForCausalLM" => l < n("first_k_dense_replace"),
        _ => {
            let listed = config["mlp_only_layers"].as_array().is_some_and(|list| list.contains(&json!(l)));
            listed || !(l + 1).is_multiple_of(n("decoder_sparse_step").max(1))
        }
    };
    if dense {
        network("mlp", new, inter);
        return shapes;
    }
    let (block, names, experts, width) = match family {
        "MixtralForCausalLM" | "MiniMaxM2ForCausalLM" | "MiniMaxText01ForCausalLM" => {
            ("block_sparse_moe", old, n("num_local_experts"), inter)
        }
        "OlmoeForCausalLM" => ("mlp", new, n("num_experts"), inter),
        "Glm4MoeForCausalLM" => ("mlp", new, n("n_routed_experts"), n("moe_intermediate_size")),
        "GptOssForCausalLM" => ("mlp", new, n("num_local_experts"), inter),
        _ => ("mlp", new, n("num_experts"), n("moe_intermediate_size")),
    };
    if family == "GptOssForCausalLM" {
        add("mlp.router.weight", &[experts, hidden]);
        add("mlp.router.bias", &[experts]);
        add("mlp.experts.gate_up_proj", &[experts, hidden, 2 * width]);
        add("mlp.experts.gate_up_proj_bias", &[experts, 2 * width]);
        add("mlp.experts.down_proj", &[experts, width, hidden]);
        add("mlp.experts.down_proj_bias", &[experts, hidden]);
        return shapes;
    }
    for e in 0..experts {
        network(&format!("{block}.experts.{e}"), names, width);
    }
    match family {
        "Qwen2MoeForCausalLM" => network("mlp.shared_expert", new, n("shared_expert_intermediate_size")),
        "Glm4MoeForCausalLM" => network("mlp.shared_experts", new, n("n_shared_experts") * width),
        _ => {}
    }
    add(&format!("{block}.gate.weight"), &[experts, hidden]);
    match family {
        "Qwen2MoeForCausalLM" => add("mlp.shared_expert_gate.weight", &[1, hidden]),
        "Glm4MoeForCausalLM" => add("mlp.gate.e_score_correction_bias", &[experts]),
        "MiniMaxM2ForCausalLM" => add("block_sparse_moe.e_score_correction_bias", &[experts]),
        _ => {}
    }
    shapes
}
