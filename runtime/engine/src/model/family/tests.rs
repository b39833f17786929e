//! What published configurations come to, and what of them is refused.

mod latent;

use crate::load_error::LoadError;
use crate::model::config::plan::{
    Activation, AttentionPlan, LayerPlan, Mixer, Mlp, MoePlan, QkNorm, SharedPlan,
};
use crate::model::config::rope::{Pairs, RopePlan};
use crate::model::config::{Config, ConfigRule};
use coterie_kernels::gate::{Groups, Rule, Scores, Worth};
use serde_json::{Value, json};

fn read(config: &Value) -> Result<Config, LoadError> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    Config::read(dir.path())
}

fn with(mut config: Value, changes: Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn rule(config: Value, changes: Value) -> ConfigRule {
    match read(&with(config, changes)) {
        Err(LoadError::Config { rule, .. }) => rule,
        other => panic!("expected a broken rule, got {other:?}"),
    }
}

fn attention(layer: &LayerPlan) -> &AttentionPlan {
    match &layer.mixer {
        Mixer::Attention(attention) => attention,
        other => panic!("expected attention, got {other:?}"),
    }
}

fn moe(layer: &LayerPlan) -> &MoePlan {
    match &layer.mlp {
        Mlp::Moe(moe) => moe,
        Mlp::Dense { .. } => panic!("the layer is dense"),
    }
}

/// Qwen3-30B-A3B.
fn qwen3() -> Value {
    json!({
        "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false, "decoder_sparse_step": 1,
        "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 6144, "max_position_embeddings": 40960, "max_window_layers": 48,
        "mlp_only_layers": [], "moe_intermediate_size": 768, "norm_topk_prob": true, "num_attention_heads": 32,
        "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
        "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 1000000.0, "sliding_window": null,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_sliding_window": false,
        "vocab_size": 151936
    })
}

/// Qwen1.5-MoE-A2.7B.
fn qwen2() -> Value {
    json!({
        "architectures": ["Qwen2MoeForCausalLM"], "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 5632, "max_position_embeddings": 8192, "max_window_layers": 21,
        "num_attention_heads": 16, "num_hidden_layers": 24, "num_key_value_heads": 16, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": false,
        "use_sliding_window": false, "vocab_size": 151936, "decoder_sparse_step": 1,
        "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632, "num_experts_per_tok": 4,
        "num_experts": 60, "norm_topk_prob": false
    })
}

/// GLM-4.5.
fn glm() -> Value {
    json!({
        "architectures": ["Glm4MoeForCausalLM"], "attention_bias": true, "first_k_dense_replace": 3,
        "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120, "intermediate_size": 12288,
        "max_position_embeddings": 131072, "moe_intermediate_size": 1536, "n_group": 1, "n_routed_experts": 160,
        "n_shared_experts": 1, "norm_topk_prob": true, "num_attention_heads": 96, "num_experts_per_tok": 8,
        "num_hidden_layers": 92, "num_key_value_heads": 8, "num_nextn_predict_layers": 1,
        "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-5, "rope_scaling": null, "rope_theta": 1000000,
        "routed_scaling_factor": 2.5, "topk_group": 1, "use_qk_norm": true, "vocab_size": 151552
    })
}

/// MiniMax-M2, but for its fp8 weights.
fn minimax_m2() -> Value {
    json!({
        "architectures": ["MiniMaxM2ForCausalLM"], "attn_type_list": [1, 1], "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 1536, "max_position_embeddings": 196608,
        "num_attention_heads": 48, "num_experts_per_tok": 8, "num_hidden_layers": 62, "num_key_value_heads": 8,
        "num_local_experts": 256, "qk_norm_type": "per_layer", "rms_norm_eps": 1e-6, "rope_theta": 5000000,
        "rotary_dim": 64, "scoring_func": "sigmoid", "shared_intermediate_size": 0, "use_qk_norm": true,
        "use_routing_bias": true, "vocab_size": 200064
    })
}

/// gpt-oss-20b.
fn gpt_oss() -> Value {
    json!({
        "architectures": ["GptOssForCausalLM"], "attention_bias": true, "experts_per_token": 4, "head_dim": 64,
        "hidden_act": "silu", "hidden_size": 2880, "initial_context_length": 4096, "intermediate_size": 2880,
        "layer_types": ["sliding_attention", "full_attention"], "max_position_embeddings": 131072,
        "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 2, "num_key_value_heads": 8,
        "num_local_experts": 32, "quantization_config": {"quant_method": "mxfp4"}, "rms_norm_eps": 1e-5,
        "rope_scaling": {
            "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
            "rope_type": "yarn", "truncate": false
        },
        "rope_theta": 150000, "sliding_window": 128, "swiglu_limit": 7.0, "vocab_size": 201088
    })
}

#[test]
fn qwen3_norms_each_head_and_renormalises() {
    let config = read(&qwen3()).unwrap();
    assert_eq!((config.layers.len(), config.experts(), config.context_length), (48, [128, 8], 40_960));
    let layer = &config.layers[47];
    let AttentionPlan { shape, rope, qk_norm, qkv_bias, .. } = attention(layer);
    assert_eq!((shape.heads, shape.kv_heads, shape.head_dim, rope.rotary_dim), (32, 4, 128, 128));
    assert_eq!((*qk_norm, *qkv_bias), (QkNorm::Heads, false));
    let rule = Rule { per_token: 8, scores: Scores::Softmax, groups: None, renormalise: true, factor: 1.0 };
    assert_eq!((moe(layer).rule, moe(layer).intermediate), (rule, 768));

    let changes = json!({"mlp_only_layers": [1, 5], "decoder_sparse_step": 2, "num_hidden_layers": 7});
    let config = read(&with(qwen3(), changes)).unwrap();
    let sparse: Vec<usize> = config.expert_layers().map(|(l, _)| l).collect();
    assert_eq!(sparse, [3], "every second one, but for those that are listed");
    assert!(matches!(config.layers[0].mlp, Mlp::Dense { intermediate: 6144 }));
}

#[test]
fn qwen2_has_biases_and_a_gated_shared_expert() {
    let config = read(&qwen2()).unwrap();
    let layer = &config.layers[0];
    let AttentionPlan { shape, qk_norm, qkv_bias, o_bias, .. } = attention(layer);
    assert_eq!((*qk_norm, *qkv_bias, *o_bias), (QkNorm::None, true, false));
    assert_eq!((shape.head_dim, shape.window), (128, None), "a window that is not used is none");
    assert_eq!(moe(layer).shared, Some(SharedPlan { intermediate: 5632, gated: true }));
    assert!(!moe(layer).rule.renormalise);
}

#[test]
fn glm_has_three_dense_layers_and_a_gate_like_deepseeks() {
    let config = read(&glm()).unwrap();
    assert_eq!((config.expert_layers().count(), config.layers.len()), (89, 92));
    let layer = &config.layers[3];
    assert_eq!(attention(layer).rope.rotary_dim, 64);
    assert_eq!((attention(layer).qkv_bias, attention(layer).o_bias), (true, false));
    let rule = Rule { per_token: 8, scores: Scores::Sigmoid, groups: None, renormalise: true, factor: 2.5 };
    assert_eq!((moe(layer).rule, moe(layer).correction), (rule, true));

    let config = read(&with(glm(), json!({"n_group": 8, "topk_group": 4}))).unwrap();
    let groups = Groups { count: 8, kept: 4, worth: Worth::TwoBest };
    assert_eq!(moe(&config.layers[3]).rule.groups, Some(groups));
}

#[test]
fn minimax_m2_rotates_half_of_each_head() {
    let config = read(&minimax_m2()).unwrap();
    let layer = &config.layers[61];
    let rope = RopePlan { theta: 5e6, rotary_dim: 64, pairs: Pairs::Halves, yarn: None };
    assert_eq!((&attention(layer).rope, attention(layer).qk_norm), (&rope, QkNorm::Whole));
    assert_eq!((moe(layer).rule.scores, moe(layer).correction), (Scores::Sigmoid, true));
}

#[test]
fn gpt_oss_has_windows_sinks_and_a_clamped_activation() {
    let config = read(&gpt_oss()).unwrap();
    let windows: Vec<_> = config.layers.iter().map(|layer| attention(layer).shape.window).collect();
    assert_eq!(windows, [Some(128), None]);
    let layer = &config.layers[1];
    assert!(attention(layer).sinks && attention(layer).o_bias && moe(layer).biases);
    assert_eq!(moe(layer).activation, Activation::ClampedSwiglu { alpha: 1.702, limit: 7.0 });
    let yarn = attention(layer).rope.yarn.as_ref().unwrap();
    assert_eq!((yarn.factor, yarn.original_context, yarn.truncate), (32.0, 4096, false));
    assert!((yarn.amplitude - 1.346_573_6).abs() < 1e-6, "{}", yarn.amplitude);

    let unnamed = read(&with(gpt_oss(), json!({"layer_types": null, "num_hidden_layers": 3}))).unwrap();
    let windows: Vec<_> = unnamed.layers.iter().map(|layer| attention(layer).shape.window).collect();
    assert_eq!(windows, [Some(128), None, Some(128)]);
}

/// A key that changes what is computed is never passed over.
#[test]
fn what_a_family_does_not_compute_is_refused() {
    for (config, changes, key) in [
        (qwen3(), json!({"use_sliding_window": true}), "use_sliding_window"),
        (qwen3(), json!({"layer_types": ["sliding_attention"]}), "layer_types"),
        (glm(), json!({"sliding_window": 4096}), "sliding_window"),
        (qwen3(), json!({"hidden_act": "gelu"}), "hidden_act"),
        (qwen3(), json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (qwen3(), json!({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}), "rope_type"),
        (
            qwen3(),
            json!({"quantization_config": {"quant_method": "awq"}}),
            "quantization_config.quant_method",
        ),
        (qwen3(), json!({"quantization_config": {}}), "quantization_config.quant_method"),
        (
            gpt_oss(),
            json!({"quantization_config": {"quant_method": "fp8"}}),
            "quantization_config.quant_method",
        ),
        (gpt_oss(), json!({"layer_types": ["full_attention", "linear_attention"]}), "layer_types"),
        (minimax_m2(), json!({"attn_type_list": [1, 0]}), "attn_type_list"),
        (minimax_m2(), json!({"scoring_func": "softmax"}), "scoring_func"),
        (minimax_m2(), json!({"use_routing_bias": false}), "use_routing_bias"),
        (minimax_m2(), json!({"use_qk_norm": false}), "use_qk_norm"),
        (minimax_m2(), json!({"qk_norm_type": "per_head"}), "qk_norm_type"),
        (minimax_m2(), json!({"shared_intermediate_size": 64}), "shared_intermediate_size"),
        (with(qwen3(), json!({"architectures": ["OlmoeForCausalLM"]})), json!({"clip_qkv": 8.0}), "clip_qkv"),
    ] {
        match rule(config, changes.clone()) {
            ConfigRule::Unsupported { key: found, .. } => assert_eq!(found, key, "{changes}"),
            other => panic!("{changes}: {other}"),
        }
    }
}

#[test]
fn numbers_that_do_not_fit_each_other_are_refused() {
    let divides = rule(glm(), json!({"n_group": 7, "topk_group": 2}));
    assert!(matches!(divides, ConfigRule::NotDivisible { by: 7, .. }), "{divides}");
    let few = rule(glm(), json!({"n_group": 40, "topk_group": 1}));
    assert_eq!(few, ConfigRule::ExpertsPerToken { per_token: 8, experts: 4 });
    let more = rule(glm(), json!({"n_group": 4, "topk_group": 5}));
    assert!(matches!(more, ConfigRule::OutOfRange { key: "topk_group", .. }), "{more}");
    let lonely = rule(glm(), json!({"n_group": 160, "topk_group": 80}));
    assert!(matches!(lonely, ConfigRule::OutOfRange { key: "n_group", .. }), "{lonely}");
    assert_eq!(rule(glm(), json!({"first_k_dense_replace": 92})), ConfigRule::NoExperts);
    assert!(matches!(
        rule(glm(), json!({"routed_scaling_factor": 0.0})),
        ConfigRule::Float { key: "routed_scaling_factor", .. }
    ));
    assert!(matches!(
        rule(qwen3(), json!({"decoder_sparse_step": 0})),
        ConfigRule::OutOfRange { key: "decoder_sparse_step", .. }
    ));
    assert_eq!(rule(minimax_m2(), json!({"rotary_dim": 63})), ConfigRule::OddRotary { rotary_dim: 63 });
    assert!(matches!(
        rule(minimax_m2(), json!({"rotary_dim": 130})),
        ConfigRule::OutOfRange { key: "rotary_dim", .. }
    ));
    assert!(matches!(
        rule(glm(), json!({"partial_rotary_factor": 0.001})),
        ConfigRule::Float { key: "partial_rotary_factor", .. }
    ));
    assert_eq!(rule(qwen3(), json!({"rope_theta": null})), ConfigRule::Missing { key: "rope_theta" });
    assert_eq!(
        rule(gpt_oss(), json!({"num_hidden_layers": 3})),
        ConfigRule::ListLength { key: "layer_types", found: 2, layers: 3 }
    );
    let yarn = json!({"rope_scaling": {"rope_type": "yarn", "factor": -1.0}});
    assert!(matches!(rule(gpt_oss(), yarn), ConfigRule::Float { key: "factor", .. }));
}

/// YaRN leaves fast turns as they are, and divides slow ones by its factor.
#[test]
fn yarn_stretches_slow_turns_only() {
    let config = read(&gpt_oss()).unwrap();
    let stretched = &attention(&config.layers[0]).rope;
    let plain = RopePlan { yarn: None, ..stretched.clone() };
    let (stretched, plain) = (stretched.frequencies(), plain.frequencies());
    assert_eq!((stretched.len(), stretched[0], plain[0]), (32, 1.0, 1.0));
    assert_eq!(stretched[31], plain[31] / 32.0);
    assert!(
        stretched.iter().zip(&plain).all(|(stretched, plain)| (plain / 32.0..=*plain).contains(stretched))
    );
}

#[test]
fn an_unknown_architecture_is_told_all_that_are_known_and_the_nearest() {
    for (name, nearest) in [
        ("Qwen3MoeForCausalLm", "Qwen3MoeForCausalLM"),
        ("Glm4vMoeForConditionalGeneration", "Glm4MoeForCausalLM"),
        ("MiniMaxM3ForCausalLM", "MiniMaxM2ForCausalLM"),
        ("GptOss2ForCausalLM", "GptOssForCausalLM"),
    ] {
        let told = read(&with(qwen3(), json!({"architectures": [name]}))).unwrap_err().to_string();
        assert!(told.contains(&format!("nearest: {nearest}")) && told.contains(name), "{told}");
        assert!(told.contains("known: MixtralForCausalLM, Qwen3MoeForCausalLM,"), "{told}");
    }
}
