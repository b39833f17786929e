use super::*;

use crate::model::config::plan::{AttentionPlan, Mixer};
use serde_json::Value;

const OLD: &str = r#"{"architectures": ["MixtralForCausalLM"], "vocab_size": 64, "hidden_size": 32,
    "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_local_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
    "rope_theta": 5000.0, "sliding_window": null, "torch_dtype": "bfloat16", "hidden_act": "silu",
    "eos_token_id": 2}"#;

/// The good config with some keys replaced.
fn read(changes: &[(&str, Value)]) -> Result<Config, LoadError> {
    let dir = tempfile::tempdir().unwrap();
    let mut json: serde_json::Map<String, Value> = serde_json::from_str(OLD).unwrap();
    for (key, value) in changes {
        json.insert((*key).to_owned(), value.clone());
    }
    std::fs::write(dir.path().join("config.json"), serde_json::to_vec(&json).unwrap()).unwrap();
    Config::read(dir.path())
}

fn rule(changes: &[(&str, Value)]) -> ConfigRule {
    match read(changes) {
        Err(LoadError::Config { rule, .. }) => rule,
        other => panic!("expected a broken rule, got {other:?}"),
    }
}

fn attention(config: &Config) -> &AttentionPlan {
    match &config.layers[0].mixer {
        Mixer::Attention(attention) => attention,
        other => panic!("expected attention, got {other:?}"),
    }
}

#[test]
fn no_folder_and_a_file_in_its_place_are_named_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.gguf");
    std::fs::write(&file, "x").unwrap();
    for path in [file, dir.path().join("absent")] {
        assert!(matches!(Config::read(&path), Err(LoadError::Folder { .. })), "{}", path.display());
    }
}

#[test]
fn the_old_generation_is_read() {
    let config = read(&[]).unwrap();
    assert_eq!((config.layers.len(), config.experts()), (2, [4, 2]));
    let AttentionPlan { shape, rope, .. } = attention(&config);
    assert_eq!((shape.head_dim, rope.theta, rope.rotary_dim), (8, 5000.0, 8));
    assert_eq!(config.stop_tokens, [2]);
    assert!(!config.tied_embeddings);
}

#[test]
fn the_new_generation_is_read() {
    let config = read(&[
        ("rope_theta", Value::Null),
        ("rope_parameters", serde_json::json!({"rope_theta": 7.5, "rope_type": "default"})),
        ("num_local_experts", Value::Null),
        ("num_experts", 8.into()),
        ("head_dim", 10.into()),
        ("tie_word_embeddings", true.into()),
        ("eos_token_id", serde_json::json!([3, 5])),
    ])
    .unwrap();
    let AttentionPlan { shape, rope, .. } = attention(&config);
    assert_eq!((rope.theta, config.experts()[0], shape.head_dim), (7.5, 8, 10));
    assert_eq!(config.stop_tokens, [3, 5]);
    assert!(config.tied_embeddings);
}

#[test]
fn absurd_numbers_are_refused() {
    assert_eq!(
        rule(&[("num_hidden_layers", 1_000_000_000_000u64.into())]),
        ConfigRule::OutOfRange { key: "num_hidden_layers", value: 1_000_000_000_000, limit: 4096 }
    );
    assert!(matches!(rule(&[("num_attention_heads", 0.into())]), ConfigRule::OutOfRange { .. }));
    assert!(matches!(rule(&[("vocab_size", Value::Null)]), ConfigRule::Missing { key: "vocab_size" }));
    assert!(matches!(rule(&[("num_attention_heads", 3.into())]), ConfigRule::NotDivisible { .. }));
    assert!(matches!(rule(&[("num_key_value_heads", 3.into())]), ConfigRule::NotDivisible { .. }));
    assert_eq!(
        rule(&[("num_experts_per_tok", 5.into())]),
        ConfigRule::ExpertsPerToken { per_token: 5, experts: 4 }
    );
    assert_eq!(rule(&[("head_dim", 7.into())]), ConfigRule::OddRotary { rotary_dim: 7 });
    assert!(matches!(rule(&[("rms_norm_eps", 2.into())]), ConfigRule::Float { .. }));
    assert!(matches!(rule(&[("rope_theta", 0.into())]), ConfigRule::Float { .. }));
    assert!(matches!(rule(&[("hidden_act", "gelu".into())]), ConfigRule::Unsupported { .. }));
    assert!(matches!(rule(&[("eos_token_id", 64.into())]), ConfigRule::StopToken { token: 64, .. }));
    let scaled = serde_json::json!({"type": "dynamic", "rope_type": "dynamic", "factor": 4.0});
    assert!(matches!(rule(&[("rope_scaling", scaled)]), ConfigRule::Unsupported { .. }));
}

#[test]
fn a_number_of_the_wrong_kind_is_the_parsers_error() {
    for value in [Value::from(-1), Value::from(1.5), Value::from("64")] {
        assert!(matches!(read(&[("vocab_size", value)]), Err(LoadError::Json { .. })));
    }
}

#[test]
fn the_parsers_errors_say_where() {
    let text = read(&[("eos_token_id", "end".into())]).unwrap_err().to_string();
    assert!(text.contains("neither a token id nor a list"), "{text}");
    let text = read(&[("vocab_size", "many".into())]).unwrap_err().to_string();
    assert!(text.contains("config.json") && text.contains("line 1 column"), "{text}");
}

#[test]
fn an_unknown_architecture_is_told_the_nearest() {
    let error = read(&[("architectures", serde_json::json!(["MistralForCausalLM"]))]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("MistralForCausalLM") && text.contains("nearest: MixtralForCausalLM"), "{text}");
}
