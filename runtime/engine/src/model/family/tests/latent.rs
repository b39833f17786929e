//! DeepSeek and Pangu.

use super::{moe, read, rule, with};
use crate::model::config::Config;
use crate::model::config::plan::{LatentPlan, Mixer, Residual};
use crate::model::config::rope::Pairs;
use coterie_kernels::gate::{Groups, Rule, Scores, Worth};
use serde_json::{Value, json};

/// As published.
fn v3() -> Value {
    json!({
        "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "eos_token_id": 1,
        "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168, "intermediate_size": 18432,
        "kv_lora_rank": 512, "max_position_embeddings": 163840, "moe_intermediate_size": 2048, "moe_layer_freq": 1,
        "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": true,
        "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
        "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "quantization_config": {
            "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]
        },
        "rms_norm_eps": 1e-6,
        "rope_scaling": {
            "beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 4096, "type": "yarn"
        },
        "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "tie_word_embeddings": false,
        "topk_group": 4, "topk_method": "noaux_tc", "torch_dtype": "bfloat16", "v_head_dim": 128,
        "vocab_size": 129280
    })
}

/// As published.
fn pangu() -> Value {
    json!({
        "architectures": ["PanguUltraMoEForCausalLM"], "attention_kv_lora_dim": 512, "attention_q_lora_dim": 1536,
        "attention_qk_dim": 128, "attention_qk_rope_dim": 64, "attention_v_dim": 128, "hidden_act": "silu",
        "hidden_size": 7680, "intermediate_size": 18432, "max_position_embeddings": 131072,
        "moe_intermediate_size": 2048, "num_attention_heads": 128, "num_dense_layers": 3, "num_experts_per_tok": 8,
        "num_hidden_layers": 61, "num_mtp_layers": 1, "num_routed_experts": 256, "num_shared_experts": 1,
        "rms_norm_eps": 1e-5, "rope_theta": 25600000.0, "routed_scaling_factor": 2.5, "tie_word_embeddings": false,
        "vocab_size": 153600
    })
}

fn latent(config: &Config) -> &LatentPlan {
    match &config.layers[0].mixer {
        Mixer::Latent(latent) => latent,
        other => panic!("expected latent attention, got {other:?}"),
    }
}

#[test]
fn deepseek_v3_is_read_as_published() {
    let config = read(&v3()).unwrap();
    let LatentPlan { shape, nope, value, q_latent, rope, eps } = latent(&config);
    assert_eq!((shape.heads, shape.latent, shape.rope), (128, 512, 64));
    assert_eq!((*nope, *value, *q_latent, *eps), (128, 128, Some(1536), 1e-6));
    // YaRN's temperature, squared, over the root of a key's width.
    let temperature = 0.1 * 40f32.ln() + 1.0;
    assert!((shape.scale - temperature * temperature / 192f32.sqrt()).abs() < 1e-7, "{}", shape.scale);
    assert_eq!((rope.pairs, rope.amplitude()), (Pairs::Neighbours, 1.0));
    assert_eq!(config.expert_layers().map(|(l, _)| l).collect::<Vec<_>>(), (3..61).collect::<Vec<_>>());
    let moe = moe(&config.layers[3]);
    let groups = Some(Groups { count: 8, kept: 4, worth: Worth::TwoBest });
    let rule = Rule { per_token: 8, scores: Scores::Sigmoid, groups, renormalise: true, factor: 2.5 };
    assert_eq!((moe.rule, moe.correction), (rule, true));
    assert_eq!(moe.shared.as_ref().map(|shared| shared.intermediate), Some(2048));
    assert_eq!(shape.bytes_per_token(), 576 * 4);
}

#[test]
fn deepseek_v2_takes_the_softmax_and_each_groups_best() {
    let v2 = with(
        v3(),
        json!({
            "architectures": ["DeepseekV2ForCausalLM"], "scoring_func": "softmax", "norm_topk_prob": false,
            "topk_method": "group_limited_greedy", "q_lora_rank": null
        }),
    );
    let config = read(&v2).unwrap();
    let groups = Some(Groups { count: 8, kept: 4, worth: Worth::Best });
    let of_2 = Rule { per_token: 8, scores: Scores::Softmax, groups, renormalise: false, factor: 2.5 };
    let moe = moe(&config.layers[3]);
    assert_eq!((moe.rule, moe.correction, latent(&config).q_latent), (of_2, false, None));
    let refused = |changes| rule(v2.clone(), changes).to_string();
    assert!(refused(json!({"norm_topk_prob": true})).contains("norm_topk_prob is true"));
    assert!(refused(json!({"topk_method": "noaux_tc"})).contains("it does greedy"));
}

#[test]
fn pangus_two_spellings_are_the_same_model() {
    let own = read(&pangu()).unwrap();
    let mut theirs = with(pangu(), json!({"sandwich_norm": true, "router_enable_expert_bias": false}));
    for (from, to) in [
        ("attention_q_lora_dim", "q_lora_rank"),
        ("attention_kv_lora_dim", "kv_lora_rank"),
        ("attention_qk_dim", "qk_nope_head_dim"),
        ("attention_qk_rope_dim", "qk_rope_head_dim"),
        ("attention_v_dim", "v_head_dim"),
        ("num_routed_experts", "n_routed_experts"),
        ("num_shared_experts", "n_shared_experts"),
        ("num_dense_layers", "first_k_dense_replace"),
    ] {
        theirs[to] = theirs.as_object_mut().unwrap().remove(from).unwrap();
    }
    assert_eq!(read(&theirs).unwrap(), own);
    assert!(own.layers.iter().all(|layer| layer.residual == Residual::Sandwich));
    let experts = moe(&own.layers[3]);
    assert_eq!((latent(&own).eps, experts.rule.groups, experts.correction), (1e-5, None, false));
    let biased = read(&with(pangu(), json!({"router_enable_expert_bias": true}))).unwrap();
    assert!(moe(&biased.layers[3]).correction);
}

#[test]
fn what_would_be_computed_otherwise_is_refused() {
    for (key, value, says) in [
        ("attention_bias", json!(true), "attention_bias is true"),
        ("scoring_func", "softmax".into(), "it does sigmoid"),
        ("topk_method", "greedy".into(), "it does noaux_tc"),
        ("moe_layer_freq", 2.into(), "moe_layer_freq is 2"),
        ("mlp_bias", true.into(), "mlp_bias is true"),
        ("hidden_act", "gelu".into(), "it does silu"),
        ("quantization_config", json!({"quant_method": "awq"}), "it does fp8"),
        ("routed_scaling_factor", Value::Null, "routed_scaling_factor is missing"),
        ("routed_scaling_factor", 0.into(), "a positive number"),
        ("kv_lora_rank", Value::Null, "kv_lora_rank is missing"),
        ("v_head_dim", 0.into(), "v_head_dim is 0"),
        ("qk_rope_head_dim", 63.into(), "must be even"),
        ("q_lora_rank", 0.into(), "q_lora_rank is 0"),
        ("n_group", 7.into(), "is not a multiple of"),
        ("topk_group", 9.into(), "topk_group is 9"),
        ("n_group", 256.into(), "more than the 4 experts"),
    ] {
        let told = rule(v3(), json!({ key: value })).to_string();
        assert!(told.contains(says), "{key}: {told}");
    }
    for (key, value) in [("sandwich_norm", json!(false)), ("n_group", 2.into())] {
        assert!(rule(pangu(), json!({ key: value })).to_string().contains(key));
    }
}
