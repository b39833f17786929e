//! Sizes against published ones, and configs that are wrong.

use super::*;
use serde_json::json;

fn sizes(config: &Value) -> ModelSizes {
    read(&config.to_string()).unwrap()
}

fn refused(config: &Value) -> String {
    read(&config.to_string()).unwrap_err().to_string()
}

fn mixtral() -> Value {
    json!({
        "architectures": ["MixtralForCausalLM"], "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8,
        "num_experts_per_tok": 2, "max_position_embeddings": 32768, "sliding_window": null,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16"
    })
}

fn minimax() -> Value {
    serde_json::from_str(include_str!("../../../../examples/minimax-text-01/config.json")).unwrap()
}

fn deepseek() -> Value {
    json!({
        "architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 129280, "hidden_size": 7168,
        "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
        "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 256,
        "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "moe_layer_freq": 1,
        "num_nextn_predict_layers": 1, "max_position_embeddings": 163840, "tie_word_embeddings": false,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}
    })
}

fn qwen3() -> Value {
    json!({
        "architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 151936, "hidden_size": 2048,
        "intermediate_size": 6144, "moe_intermediate_size": 768, "num_hidden_layers": 48,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128,
        "num_experts_per_tok": 8, "decoder_sparse_step": 1, "mlp_only_layers": [], "attention_bias": false,
        "max_position_embeddings": 40960, "tie_word_embeddings": false
    })
}

#[test]
fn mixtral_has_46_7_billion_parameters() {
    let sizes = sizes(&mixtral());
    assert_eq!((sizes.parameters, sizes.active_parameters), (46_702_792_704, 12_879_925_248));
    assert_eq!((sizes.layers, sizes.experts, sizes.context_length), (32, 8, 32768));
    let cpu = sizes.inspection(Device::Cpu);
    assert_eq!(cpu.kv_bytes_per_token, 2 * sizes.inspection(Device::Gpu).kv_bytes_per_token);
    assert_eq!((cpu.kv_bytes_per_token, cpu.state_bytes), (32 * 2 * 8 * 128 * 4, 0));
    assert_eq!(cpu.devices, [Device::Cpu]);
}

#[test]
fn mixtral_8x22b_has_141_billion() {
    let mut config = mixtral();
    for (key, value) in [
        ("hidden_size", 6144),
        ("intermediate_size", 16384),
        ("num_hidden_layers", 56),
        ("num_attention_heads", 48),
        ("vocab_size", 32768),
    ] {
        config[key] = value.into();
    }
    assert_eq!(sizes(&config).parameters, 140_630_071_296);
}

/// The checkpoint's 912,210,767,872 bytes, of which gates are f32 and all else bf16; the runtime widens vectors.
#[test]
fn minimax_has_456_billion_parameters_and_its_checkpoints_bytes() {
    let sizes = sizes(&minimax());
    assert_eq!((sizes.parameters, sizes.expert_parameters), (456_089_655_296, 434_865_438_720));
    let vectors = 70 * 8192 + 80 * 2 * 6144 + 6144;
    assert_eq!(sizes.weight_bytes.none - 2 * vectors, 912_210_767_872);
    // Published are 45.9 B, without embedding and head.
    let ends = 2 * 200_064 * 6144;
    assert_eq!((sizes.active_parameters - ends) / 10_000_000, 4594);
    // Int8 experts without scales and all else in bf16: 477 GB.
    let others = sizes.parameters - sizes.expert_parameters;
    assert_eq!((sizes.expert_parameters + 2 * others) / 1_000_000_000, 477);
    // The runtime's int8 has a scale of 4 bytes for each 64 values.
    assert_eq!(sizes.expert_bytes.int8, sizes.expert_parameters / 16 * 17);
    let gpu = sizes.inspection(Device::Gpu);
    // 70 layers of 64 sums of 128 × 128, and the keys and values of a block of 16.
    let (sums, state) = (293_601_280, 367_001_600);
    assert_eq!((gpu.kv_bytes_per_token, gpu.state_bytes), (40 << 10, state));
    assert_eq!(gpu.spare_bytes, 2048 * (40 << 10) + 15 * state + 16 * sums);
    assert_eq!(sizes.inspection(Device::Cpu).state_bytes, state, "states are f32 everywhere");
    assert_eq!(gpu.devices, SERVED_ON);
    // And its int4 one for each 32, beside half a byte each.
    assert_eq!(sizes.expert_bytes.int4, Some(sizes.expert_parameters / 32 * 20));
}

#[test]
fn both_spellings_of_minimax_are_the_same_model() {
    let mut newer = minimax();
    let kinds: Vec<&str> =
        (0..80).map(|l| if l % 8 == 7 { "full_attention" } else { "linear_attention" }).collect();
    newer["architectures"] = json!(["MiniMaxForCausalLM"]);
    newer["layer_types"] = json!(kinds);
    newer.as_object_mut().unwrap().remove("attn_type_list");
    let older = sizes(&minimax());
    // Its gates are bf16.
    let narrower = |bytes: WeightBytes| {
        let gates = 80 * 32 * 6144 * 2;
        WeightBytes {
            none: bytes.none - gates,
            int8: bytes.int8 - gates,
            int4: bytes.int4.map(|int4| int4 - gates),
        }
    };
    let weight_bytes = narrower(older.weight_bytes);
    let expected = ModelSizes { architecture: "MiniMaxForCausalLM", weight_bytes, ..older };
    assert_eq!(sizes(&newer), expected);
    newer["layer_types"] = json!(kinds[1..]);
    assert_eq!(refused(&newer), "layer_types has 79 entries, and there are 80 layers");
}

#[test]
fn deepseek_v3_has_671_billion_and_keeps_a_latent() {
    let sizes = sizes(&deepseek());
    assert_eq!(sizes.parameters, 671_026_419_200);
    assert_eq!(sizes.active_parameters / 1_000_000_000, 37);
    assert_eq!(sizes.kv_values_per_token, 61 * 576);
    assert_eq!(sizes.inspection(Device::Cpu).kv_bytes_per_token, 61 * (512 + 64) * 4);
    assert_eq!(sizes.draft_parameters, 11_610_068_224);
    assert_eq!(sizes.checkpoint_quantization.as_deref(), Some("fp8"));
}

#[test]
fn deepseek_v2_lite_has_15_7_billion_and_whole_queries() {
    let lite = json!({
        "architectures": ["DeepseekV2ForCausalLM"], "vocab_size": 102400, "hidden_size": 2048,
        "intermediate_size": 10944, "moe_intermediate_size": 1408, "num_hidden_layers": 27,
        "num_attention_heads": 16, "q_lora_rank": null, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 64, "n_shared_experts": 2,
        "num_experts_per_tok": 6, "first_k_dense_replace": 1, "max_position_embeddings": 163840
    });
    let sizes = sizes(&lite);
    assert_eq!(sizes.parameters, 15_706_484_224);
    assert_eq!(sizes.kv_values_per_token, 27 * (512 + 64));
}

#[test]
fn pangu_ultra_has_718_billion_in_both_spellings() {
    let own = json!({
        "architectures": ["PanguUltraMoEForCausalLM"], "vocab_size": 153600, "hidden_size": 7680,
        "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
        "num_attention_heads": 128, "attention_q_lora_dim": 1536, "attention_kv_lora_dim": 512,
        "attention_qk_dim": 128, "attention_qk_rope_dim": 64, "attention_v_dim": 128, "num_routed_experts": 256,
        "num_shared_experts": 1, "num_experts_per_tok": 8, "num_dense_layers": 3, "num_mtp_layers": 1,
        "max_position_embeddings": 131072
    });
    let mut theirs = own.clone();
    for (from, to) in [
        ("attention_q_lora_dim", "q_lora_rank"),
        ("attention_kv_lora_dim", "kv_lora_rank"),
        ("attention_qk_dim", "qk_nope_head_dim"),
        ("attention_qk_rope_dim", "qk_rope_head_dim"),
        ("attention_v_dim", "v_head_dim"),
        ("num_routed_experts", "n_routed_experts"),
        ("num_shared_experts", "n_shared_experts"),
        ("num_dense_layers", "first_k_dense_replace"),
        ("num_mtp_layers", "num_nextn_predict_layers"),
    ] {
        let value = theirs.as_object_mut().unwrap().remove(from).unwrap();
        theirs[to] = value;
    }
    let sizes = sizes(&own);
    assert_eq!(sizes, self::sizes(&theirs));
    assert_eq!(sizes.kv_values_per_token, 61 * (512 + 64));
    // Published rounded, and without saying what was counted.
    assert!(sizes.parameters.abs_diff(718_000_000_000) < 1_500_000_000, "{}", sizes.parameters);
    assert_eq!(sizes.kv_values_per_token, 61 * 576);
}

#[test]
fn qwen3_30b_has_30_5_billion() {
    let sizes = sizes(&qwen3());
    assert_eq!(sizes.parameters, 30_532_122_624);
    assert_eq!(sizes.active_parameters / 100_000_000, 33);
}

#[test]
fn layers_of_qwen_without_experts_are_dense() {
    let mut config = qwen3();
    config["mlp_only_layers"] = json!([0, 47, 99]);
    let layer = 128 * 3 * 2048 * 768 + 128 * 2048 - 3 * 2048 * 6144;
    assert_eq!(sizes(&config).parameters, 30_532_122_624 - 2 * layer);
    config["intermediate_size"] = Value::Null;
    assert_eq!(refused(&config), "intermediate_size is missing");
}

#[test]
fn qwen1_5_moe_has_14_3_billion_and_a_shared_expert() {
    let config = json!({
        "architectures": ["Qwen2MoeForCausalLM"], "vocab_size": 151936, "hidden_size": 2048,
        "intermediate_size": 5632, "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
        "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 60,
        "num_experts_per_tok": 4, "max_position_embeddings": 8192
    });
    let sizes = sizes(&config);
    assert_eq!((sizes.parameters, sizes.active_parameters / 100_000_000), (14_315_784_192, 26));
}

#[test]
fn olmoe_has_6_9_billion() {
    let config = json!({
        "model_type": "olmoe", "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 1024,
        "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64,
        "num_experts_per_tok": 8, "max_position_embeddings": 4096
    });
    let sizes = sizes(&config);
    assert_eq!((sizes.parameters, sizes.architecture), (6_919_161_856, "OlmoeForCausalLM"));
}

#[test]
fn gpt_oss_120b_has_116_8_billion() {
    let config = json!({
        "architectures": ["GptOssForCausalLM"], "vocab_size": 201088, "hidden_size": 2880,
        "intermediate_size": 2880, "num_hidden_layers": 36, "num_attention_heads": 64, "num_key_value_heads": 8,
        "head_dim": 64, "num_local_experts": 128, "num_experts_per_tok": 4, "sliding_window": 128,
        "max_position_embeddings": 131072, "quantization_config": {"quant_method": "mxfp4"}
    });
    let sizes = sizes(&config);
    assert_eq!(sizes.parameters, 116_829_156_672);
    // Experts of a little more than four bits a parameter, all else bf16.
    assert_eq!(sizes.weight_bytes.none / 1_000_000_000, 65);
    // Half of its layers have a window; the cache keeps what is behind it.
    assert_eq!((sizes.kv_values_per_token, sizes.window_values), (36 * 1024, 0));
}

#[test]
fn glm_4_5_has_352_billion_in_89_layers_with_experts() {
    let config = json!({
        "architectures": ["Glm4MoeForCausalLM"], "vocab_size": 151552, "hidden_size": 5120,
        "intermediate_size": 12288, "moe_intermediate_size": 1536, "num_hidden_layers": 92,
        "num_attention_heads": 96, "num_key_value_heads": 8, "head_dim": 128, "n_routed_experts": 160,
        "num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 3, "attention_bias": true,
        "use_qk_norm": true, "partial_rotary_factor": 0.5, "max_position_embeddings": 131072
    });
    let sizes = sizes(&config);
    assert_eq!(sizes.parameters / 1_000_000_000, 352);
    assert_eq!((sizes.layers, sizes.expert_layers), (92, 89));
}

#[test]
fn minimax_m2_has_228_7_billion_parameters() {
    let config = json!({
        "architectures": ["MiniMaxM2ForCausalLM"], "vocab_size": 200064, "hidden_size": 3072,
        "intermediate_size": 1536, "num_hidden_layers": 62, "num_attention_heads": 48,
        "num_key_value_heads": 8, "head_dim": 128, "num_local_experts": 256, "num_experts_per_tok": 8,
        "rotary_dim": 64, "max_position_embeddings": 196608
    });
    let sizes = sizes(&config);
    // 228,703,644,928 in the published files, the scales of their fp8 blocks included.
    assert_eq!(sizes.parameters, 228_689_764_864);
}

#[test]
fn an_unknown_family_is_told_what_is_known() {
    let told = refused(&json!({"architectures": ["LlamaForCausalLM"]}));
    assert!(
        told.starts_with("architectures names \"LlamaForCausalLM\"; sizes are known of Mixtral"),
        "{told}"
    );
    let told = refused(&json!({"model_type": "llama"}));
    assert!(told.contains("\"llama\""), "{told}");
    // A name that is known elsewhere does not help one that is not.
    let told = refused(&json!({"architectures": ["Nonsense"], "model_type": "mixtral"}));
    assert!(told.contains("\"Nonsense\""), "{told}");
}

#[test]
fn every_missing_key_is_named() {
    for config in [mixtral(), minimax(), deepseek(), qwen3()] {
        for key in config.as_object().unwrap().keys() {
            let mut without = config.clone();
            without.as_object_mut().unwrap().remove(key);
            if let Err(error) = read(&without.to_string()) {
                let told = error.to_string();
                assert!(told.contains(key) || key == "architectures", "without {key}: {told}");
            }
        }
    }
    assert_eq!(refused(&json!({"architectures": ["MixtralForCausalLM"]})), "hidden_size is missing");
}

#[test]
fn absurd_values_are_refused_by_name() {
    let with = |key: &str, value: Value| {
        let mut config = mixtral();
        config[key] = value;
        refused(&config)
    };
    assert_eq!(
        with("num_hidden_layers", json!(1_000_000)),
        "num_hidden_layers is 1000000; it must be from 1 to 4096"
    );
    assert_eq!(with("vocab_size", json!(0)), "vocab_size is 0; it must be from 1 to 16777216");
    assert_eq!(with("hidden_size", json!(-1)), "hidden_size is -1; it must be a whole number");
    assert_eq!(with("hidden_size", json!("4096")), "hidden_size is \"4096\"; it must be a whole number");
    assert_eq!(with("hidden_size", json!(1.5)), "hidden_size is 1.5; it must be a whole number");
    assert!(with("num_key_value_heads", json!(0)).contains("not a multiple"));
    assert!(with("num_experts_per_tok", json!(9)).contains("uses 9 experts of 8"));
    assert!(with("tie_word_embeddings", json!("no")).contains("true or false"));
    assert!(with("architectures", json!("MixtralForCausalLM")).contains("a list of texts"));
    let mut minimax = minimax();
    minimax["attn_type_list"] = json!([1, 0]);
    assert_eq!(refused(&minimax), "attn_type_list has 2 entries, and there are 80 layers");
    minimax["attn_type_list"] = json!((0..80).map(|layer| layer % 3).collect::<Vec<_>>());
    assert_eq!(refused(&minimax), "attn_type_list is 2; it must be from 0 to 1");
    for text in ["", "[]", "3", "{", "null"] {
        assert!(read(text).is_err(), "{text:?}");
    }
}

/// Every number at its limit, in every family: an answer or an error, never a panic.
#[test]
fn numbers_at_their_limits_do_not_overflow() {
    let names = FAMILIES.iter().map(|family| family.architecture);
    for (name, config) in names.flat_map(|name| {
        [mixtral(), minimax(), deepseek(), qwen3()].into_iter().map(move |config| (name, config))
    }) {
        for power in [8, 12, 14, 16, 18, 20, 24, 40, 64] {
            let mut large = config.clone();
            for (_, value) in large.as_object_mut().unwrap() {
                if value.is_u64() {
                    *value = json!(u64::try_from(1_u128 << power).unwrap_or(u64::MAX));
                }
            }
            for key in ["num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"] {
                large[key] = json!(1 << 12);
            }
            large["architectures"] = json!([name]);
            large["attn_type_list"] = json!(vec![0; 1 << 12]);
            if let Ok(sizes) = read(&large.to_string()) {
                sizes.inspection(Device::Cpu);
                sizes.inspection(Device::Gpu);
            }
        }
    }
}
