//! The families with latent attention.

use serde_json::{Value, json};

/// Of every family a name and a configuration.
pub fn configs() -> Vec<(&'static str, Value)> {
    let with = |architecture: &str, more: Value| {
        let mut config = json!({
            "architectures": [architecture], "vocab_size": 61, "hidden_size": 24, "intermediate_size": 20,
            "num_attention_heads": 3, "num_key_value_heads": 3, "num_hidden_layers": 3, "kv_lora_rank": 18,
            "qk_nope_head_dim": 7, "qk_rope_head_dim": 6, "v_head_dim": 5, "n_routed_experts": 8,
            "num_experts_per_tok": 2, "moe_intermediate_size": 10, "first_k_dense_replace": 1,
            "max_position_embeddings": 160, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "hidden_act": "silu",
            "eos_token_id": 2
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    };
    let yarn = json!({
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40, "mscale": 1.0, "mscale_all_dim": 0.7
    });
    vec![
        (
            "DeepSeek-V2",
            with(
                "DeepseekV2ForCausalLM",
                json!({"q_lora_rank": null, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2,
                    "n_shared_experts": 2, "scoring_func": "softmax", "norm_topk_prob": false, "rope_scaling": yarn}),
            ),
        ),
        (
            "DeepSeek-V3",
            with(
                "DeepseekV3ForCausalLM",
                json!({"q_lora_rank": 14, "topk_method": "noaux_tc", "n_group": 4, "topk_group": 2,
                    "n_shared_experts": 1, "scoring_func": "sigmoid", "norm_topk_prob": true,
                    "routed_scaling_factor": 2.5, "num_nextn_predict_layers": 1}),
            ),
        ),
        (
            "Pangu",
            with(
                "PanguUltraMoEForCausalLM",
                json!({"q_lora_rank": 14, "n_shared_experts": 1, "routed_scaling_factor": 1.5, "sandwich_norm": true,
                    "router_enable_expert_bias": true, "tie_word_embeddings": true}),
            ),
        ),
    ]
}

/// Name and shape of every tensor of layer `l`; none if the family has another attention.
pub fn layer(config: &Value, l: usize) -> Option<Vec<(String, Vec<usize>)>> {
    let n = |key: &str| config[key].as_u64().unwrap_or(0) as usize;
    let (hidden, heads, latent) = (n("hidden_size"), n("num_attention_heads"), n("kv_lora_rank"));
    if latent == 0 {
        return None;
    }
    let (nope, rope, value) = (n("qk_nope_head_dim"), n("qk_rope_head_dim"), n("v_head_dim"));
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let mut add = |name: &str, shape: &[usize]| shapes.push((format!("{name}.weight"), shape.to_vec()));

    let mut norms = vec!["input_layernorm", "post_attention_layernorm"];
    if config["sandwich_norm"] == true {
        norms.extend(["pre_mlp_layernorm", "post_mlp_layernorm"]);
    }
    norms.into_iter().for_each(|norm| add(norm, &[hidden]));
    let queries = heads * (nope + rope);
    match n("q_lora_rank") {
        0 => add("self_attn.q_proj", &[queries, hidden]),
        rank => {
            add("self_attn.q_a_proj", &[rank, hidden]);
            add("self_attn.q_a_layernorm", &[rank]);
            add("self_attn.q_b_proj", &[queries, rank]);
        }
    }
    add("self_attn.kv_a_proj_with_mqa", &[latent + rope, hidden]);
    add("self_attn.kv_a_layernorm", &[latent]);
    add("self_attn.kv_b_proj", &[heads * (nope + value), latent]);
    add("self_attn.o_proj", &[hidden, heads * value]);

    let mut network = |prefix: &str, width: usize| {
        add(&format!("{prefix}.gate_proj"), &[width, hidden]);
        add(&format!("{prefix}.up_proj"), &[width, hidden]);
        add(&format!("{prefix}.down_proj"), &[hidden, width]);
    };
    if l < n("first_k_dense_replace") {
        network("mlp", n("intermediate_size"));
        return Some(shapes);
    }
    let (experts, width) = (n("n_routed_experts"), n("moe_intermediate_size"));
    (0..experts).for_each(|e| network(&format!("mlp.experts.{e}"), width));
    network("mlp.shared_experts", n("n_shared_experts") * width);
    add("mlp.gate", &[experts, hidden]);
    if config["scoring_func"] == "sigmoid" || config["router_enable_expert_bias"] == true {
        shapes.push(("mlp.gate.e_score_correction_bias".to_owned(), vec![experts]));
    }
    Some(shapes)
}
