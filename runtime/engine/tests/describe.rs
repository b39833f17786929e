//! Models of which only config.json and the index are there.

#![allow(clippy::unwrap_used)]

use coterie_engine::weights::safetensors::Header;
use coterie_engine::{Description, LoadError, describe, inspect};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const RELEASED: &str = include_str!("../../../examples/minimax-text-01/config.json");

/// A folder with a config and an index of these tensors, each in some file.
fn folder(config: &str, tensors: impl IntoIterator<Item = String>, total: Value) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = |number: usize| format!("model-{:05}-of-00413.safetensors", number % 413);
    let map: Map<String, Value> =
        tensors.into_iter().enumerate().map(|(number, name)| (name, file(number).into())).collect();
    let index = json!({"metadata": {"total_size": total}, "weight_map": map});
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    dir
}

fn described(dir: &TempDir) -> Description {
    describe(dir.path()).unwrap().unwrap()
}

/// As the released MiniMax-M1 names its tensors.
fn minimax_m1() -> Vec<String> {
    let mut names = vec!["model.embed_tokens".to_owned(), "model.norm".to_owned(), "lm_head".to_owned()];
    for l in 0..80 {
        let mixer: &[&str] = match l % 8 {
            7 => &["q_proj", "k_proj", "v_proj", "o_proj"],
            _ => &["qkv_proj", "output_gate", "out_proj", "norm"],
        };
        let layer = format!("model.layers.{l}");
        names.extend(["input_layernorm", "post_attention_layernorm"].map(|norm| format!("{layer}.{norm}")));
        names.extend(mixer.iter().map(|name| format!("{layer}.self_attn.{name}")));
        names.push(format!("{layer}.block_sparse_moe.gate"));
        for e in 0..32 {
            names.extend(["w1", "w2", "w3"].map(|w| format!("{layer}.block_sparse_moe.experts.{e}.{w}")));
        }
    }
    names.into_iter().map(|name| name + ".weight").collect()
}

fn minimax_m1_config() -> String {
    RELEASED
        .replace("MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM")
        .replace("minimax_text_01", "minimax_m1")
}

#[test]
fn minimax_m1_is_described_from_its_index() {
    let total = 912_210_767_872_u64;
    let found = described(&folder(&minimax_m1_config(), minimax_m1(), total.into()));
    assert_eq!((found.tensors, found.files, found.total_bytes), (8243, 413, Some(total)));
    assert_eq!((found.missing, found.not_needed), (Vec::new(), Vec::new()));
    let kinds: Vec<_> = found.layer_kinds.into_iter().collect();
    assert_eq!(kinds, [("attention", 10), ("lightning attention", 70)]);
    let model = found.model;
    assert_eq!(model.architecture, "MiniMaxM1ForCausalLM");
    assert_eq!((model.parameters, model.active_parameters), (456_089_655_296, 48_403_306_496));
    assert_eq!((model.layers, model.experts, model.experts_per_token), (80, 32, 2));
    // All but the gates are bf16.
    assert_eq!(total, 2 * model.parameters + 80 * 32 * 6144 * 2);
    assert_eq!(model.state_bytes, 367_001_600);
}

#[test]
fn what_is_missing_and_what_is_not_needed_is_named() {
    let lost = [
        "model.layers.3.self_attn.output_gate.weight",
        "model.layers.9.block_sparse_moe.experts.5.w2.weight",
    ];
    let mut names = minimax_m1();
    names.retain(|name| !lost.contains(&name.as_str()));
    names.push("model.layers.80.input_layernorm.weight".to_owned());
    let found = described(&folder(&minimax_m1_config(), names, Value::Null));
    assert_eq!((found.missing, found.total_bytes), (lost.map(str::to_owned).to_vec(), None));
    assert_eq!(found.not_needed, ["model.layers.80.input_layernorm.weight"]);
    assert_eq!(found.model.parameters, 456_089_655_296, "what is missing is counted as config.json has it");
}

#[test]
fn an_index_of_another_model_is_refused() {
    let found = describe(folder(&minimax_m1_config(), [], json!("none")).path());
    // Fewer than 10,000 tensors in all: every one of them is told.
    assert_eq!(found.unwrap().unwrap().missing.len(), 8243);
    let mut config: Value = serde_json::from_str(RELEASED).unwrap();
    config["num_local_experts"] = 100.into();
    let found = describe(folder(&config.to_string(), minimax_m1(), Value::Null).path());
    assert!(matches!(found, Err(LoadError::MissingTensor { .. })), "{found:?}");
    config["num_local_experts"] = (1 << 14).into();
    let found =
        describe(folder(&config.to_string(), minimax_m1(), Value::Null).path()).unwrap_err().to_string();
    assert!(found.ends_with("num_local_experts is 16384; it must be from 1 to 13107"), "{found}");
}

#[test]
fn a_folder_with_any_weights_is_not_described() {
    let dir = folder(&minimax_m1_config(), minimax_m1(), Value::Null);
    std::fs::write(dir.path().join("model-00007-of-00413.safetensors"), "").unwrap();
    assert_eq!(describe(dir.path()).unwrap(), None);
    assert!(inspect(dir.path()).is_err());
    assert_eq!(describe(&golden().join("mixtral/plain")).unwrap(), None);
}

#[test]
fn a_shard_outside_the_folder_is_refused() {
    let dir = folder(&minimax_m1_config(), [], Value::Null);
    let index = json!({"weight_map": {"lm_head.weight": "../weights.safetensors"}});
    std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert!(matches!(describe(dir.path()), Err(LoadError::ShardOutside { .. })));
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// Every golden checkpoint.
fn cases() -> Vec<PathBuf> {
    let within = |dir: &Path| {
        let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    within(&golden()).iter().flat_map(|family| within(family)).collect()
}

/// The tensors of a folder's files, whatever the files are called.
fn tensors(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        if file.starts_with("model") && file.ends_with(".safetensors") {
            names.extend(Header::parse(&std::fs::read(&path).unwrap()).unwrap().tensors.into_keys());
        }
    }
    names
}

/// Every number of every family's config at its limit and beyond: an answer or an error, never a panic.
#[test]
fn absurd_numbers_are_described_or_refused() {
    for case in cases().iter().filter(|case| case.ends_with("plain")) {
        let config: Value =
            serde_json::from_str(&std::fs::read_to_string(case.join("config.json")).unwrap()).unwrap();
        let dir = folder(&config.to_string(), tensors(case), Value::Null);
        let numbers = config.as_object().unwrap().iter().filter(|(_, value)| value.is_u64());
        for (key, power) in numbers.flat_map(|(key, _)| [0, 10, 12, 14, 20, 24, 40].map(|power| (key, power)))
        {
            let mut config = config.clone();
            config[key] = (1_u64 << power).into();
            std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
            if let Ok(found) = describe(dir.path()) {
                assert!(found.unwrap().missing.len() <= 10_000, "{key} is 2^{power}");
            }
        }
    }
}

/// Every family: from names alone the same as from the weights themselves.
#[test]
fn golden_checkpoints_without_their_weights_are_described_as_they_are() {
    let cases = cases();
    assert!(cases.len() >= 35, "{}", cases.len());
    for case in cases {
        let found = inspect(&case).unwrap();
        let config = std::fs::read_to_string(case.join("config.json")).unwrap();
        let Description { mut model, missing, not_needed, .. } =
            described(&folder(&config, tensors(&case), Value::Null));
        model.digest.clone_from(&found.digest);
        assert_eq!((model, missing), (found.clone(), Vec::new()), "{}", case.display());
        // Nothing is left over but the module that guesses ahead.
        let behind = format!("model.layers.{}.", found.layers);
        let others = not_needed.iter().filter(|name| !name.starts_with(&behind));
        assert_eq!(others.count(), 0, "{}: {not_needed:?}", case.display());
    }
}
