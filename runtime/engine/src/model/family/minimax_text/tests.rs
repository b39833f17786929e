//! What released configurations come to, and what of them is refused.

use super::*;
use crate::load_error::LoadError;
use crate::model;
use crate::model::config::Config;
use crate::model::config::plan::Blend;
use serde_json::{Value, json};

const RELEASED: &str = include_str!("../../../../../../examples/minimax-text-01/config.json");

/// The released config with some keys replaced, or with null taken out.
fn read(changes: &[(&str, Value)]) -> Result<Config, LoadError> {
    let dir = tempfile::tempdir().unwrap();
    let mut config: serde_json::Map<String, Value> = serde_json::from_str(RELEASED).unwrap();
    changes.iter().for_each(|(key, value)| drop(config.insert((*key).to_owned(), value.clone())));
    config.retain(|_, value| !value.is_null());
    std::fs::write(dir.path().join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
    Config::read(dir.path())
}

fn rule(changes: &[(&str, Value)]) -> ConfigRule {
    match read(changes) {
        Err(LoadError::Config { rule, .. }) => rule,
        other => panic!("expected a broken rule, got {other:?}"),
    }
}

#[test]
fn the_released_config_is_read() {
    let config = read(&[]).unwrap();
    let is_softmax = |layer: &LayerPlan| matches!(layer.mixer, Mixer::Attention(_));
    let softmax: Vec<usize> = (0..80).filter(|l| is_softmax(&config.layers[*l])).collect();
    assert_eq!(softmax, [7, 15, 23, 31, 39, 47, 55, 63, 71, 79]);
    let Mixer::Attention(attention) = &config.layers[7].mixer else { panic!("layer 7 is softmax") };
    assert_eq!((attention.shape.kv_heads, attention.rope.rotary_dim, attention.rope.theta), (8, 64, 1e7));
    let Mixer::Lightning(first) = &config.layers[0].mixer else { panic!("layer 0 is lightning") };
    assert_eq!((first.heads(), first.head_dim), (64, 128));
    assert!((first.slopes[7] - 0.5 * 1.00001).abs() < 1e-12, "{}", first.slopes[7]);
    let Mixer::Lightning(late) = &config.layers[78].mixer else { panic!("layer 78 is lightning") };
    assert!((late.slopes[7] - 0.5 * (1.0 / 79.0 + 1e-5)).abs() < 1e-12, "{}", late.slopes[7]);
    let blend = Blend { alpha: 3.5565588, beta: 1.0 };
    assert_eq!(config.layers[0].residual, Residual::Normalised { mixer: blend, mlp: blend });

    // 70 layers of 64 sums of 128 × 128, and as many keys and values of a block, f32; ten layers of KV cache.
    assert_eq!(model::snapshot_bytes(&config), 293_601_280);
    assert_eq!(model::running_state_bytes(&config), 293_601_280 / 4 * 5);
    assert_eq!(model::state_bytes_per_token(&config), 10 * 2 * 8 * 128 * 4);
}

#[test]
fn both_spellings_are_the_same_model_but_for_decays() {
    let mut names = vec!["linear_attention"; 80];
    (7..80).step_by(8).for_each(|l| names[l] = "full_attention");
    let mut changes = vec![
        ("architectures", json!(["MiniMaxForCausalLM"])),
        ("attn_type_list", Value::Null),
        ("layer_types", json!(names)),
        ("postnorm", Value::Null),
    ];
    for (old, new) in [
        ("layernorm_full_attention_alpha", "full_attn_alpha_factor"),
        ("layernorm_linear_attention_alpha", "linear_attn_alpha_factor"),
        ("layernorm_mlp_alpha", "mlp_alpha_factor"),
    ] {
        // Absent betas are 1.
        changes.extend([(old, Value::Null), (new, json!(3.5565588200778455))]);
    }
    let newer: Vec<LayerPlan> = match read(&changes) {
        Ok(config) => config.layers,
        Err(error) => panic!("{error}"),
    };
    for (l, (newer, older)) in newer.into_iter().zip(read(&[]).unwrap().layers).enumerate() {
        assert_eq!((newer.residual, &newer.mlp), (older.residual, &older.mlp), "layer {l}");
        match (newer.mixer, older.mixer) {
            (Mixer::Lightning(newer), Mixer::Lightning(older)) => {
                let apart = newer.slopes.iter().zip(&older.slopes).map(|(a, b)| (a - b).abs());
                assert!(apart.fold(0.0, f64::max) < 1e-6, "layer {l}");
            }
            (newer, older) => assert_eq!(newer, older, "layer {l}"),
        }
    }
}

#[test]
fn what_would_be_another_computation_is_refused() {
    for (key, value) in [
        ("postnorm", json!(false)),
        ("postnorm", Value::Null),
        ("shared_intermediate_size", json!(1024)),
        ("hidden_act", json!("gelu")),
        ("attn_type_list", json!(vec![2; 80])),
        ("layer_types", json!(vec!["sliding_attention"; 80])),
    ] {
        assert!(
            matches!(rule(&[(key, value)]), ConfigRule::Unsupported { key: of, .. } if of == key),
            "{key}"
        );
    }
    let missing = rule(&[("attn_type_list", Value::Null)]);
    assert_eq!(missing, ConfigRule::Missing { key: "attn_type_list" });
    let short = rule(&[("attn_type_list", json!([0, 1]))]);
    assert_eq!(short, ConfigRule::ListLength { key: "attn_type_list", found: 2, layers: 80 });
    assert_eq!(rule(&[("rotary_dim", json!(63))]), ConfigRule::OddRotary { rotary_dim: 63 });
    assert!(matches!(rule(&[("rotary_dim", json!(130))]), ConfigRule::OutOfRange { key: "rotary_dim", .. }));
    let infinite = rule(&[("layernorm_mlp_beta", json!(1e300))]);
    assert!(matches!(infinite, ConfigRule::Float { key: "layernorm_mlp_beta", .. }));
}

#[test]
fn slopes_are_alibis() {
    let close = |slopes: Vec<f64>, expected: &[f64]| {
        assert_eq!(slopes.len(), expected.len());
        assert!(slopes.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{slopes:?}");
    };
    close(alibi_slopes(8), &[0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]);
    close(alibi_slopes(6), &[0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]);
    close(geometric_slopes(1), &[0.00390625]);
    close(alibi_slopes(1), &[0.00390625]);
    assert_ne!(alibi_slopes(5), geometric_slopes(5));
}
