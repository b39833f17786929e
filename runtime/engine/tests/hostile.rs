//! Every rule about model folders, each shown by a small folder that breaks it: a good one with one thing changed.

#![allow(clippy::unwrap_used, clippy::panic)]

mod tiny_mixtral;

use coterie_api::launch::{Device, TerminationReason};
use coterie_engine::weights::safetensors::HeaderRule;
use coterie_engine::{Engine, EngineOptions, LoadError, inspect};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;
use tiny_mixtral::{Tensor, config, file, safetensors, tensors, write};

fn options() -> EngineOptions {
    EngineOptions { threads: 1, max_running: 2, max_waiting: 2, ..EngineOptions::default() }
}

fn load(dir: &Path) -> Result<Engine, LoadError> {
    Engine::load(dir, &options(), &|_| {})
}

/// Both ways in must refuse the folder in the same words.
fn refused(dir: &Path) -> LoadError {
    let error = load(dir).err().expect("the folder is refused");
    assert_eq!(inspect(dir).expect_err("inspect refuses it too").to_string(), error.to_string());
    assert_eq!(error.reason(), TerminationReason::ModelRejected, "{error}");
    error
}

/// The good folder with other tensors.
fn with_tensors(change: impl FnOnce(&mut Vec<Tensor>)) -> TempDir {
    let (dir, mut tensors) = (tempfile::tempdir().unwrap(), tensors(&config(), 1));
    change(&mut tensors);
    write(dir.path(), &config(), &tensors);
    dir
}

/// The good folder with other weights bytes.
fn with_weights(bytes: &[u8]) -> TempDir {
    let dir = with_tensors(|_| {});
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    dir
}

fn with_config(changes: Value) -> TempDir {
    let dir = with_tensors(|_| {});
    let mut config = config();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

fn header_rule(bytes: &[u8]) -> HeaderRule {
    let dir = with_weights(bytes);
    match refused(dir.path()) {
        LoadError::Header { path, rule } => {
            assert!(path.ends_with("model.safetensors"));
            *rule
        }
        other => panic!("expected a header rule, got {other}"),
    }
}

/// A header of one entry, `a`, over `data` bytes.
fn entry(entry: Value, data: usize) -> HeaderRule {
    header_rule(&file(&json!({ "a": entry }).to_string(), &vec![0; data]))
}

#[test]
fn the_good_folder_loads() {
    let dir = with_tensors(|_| {});
    assert!(load(dir.path()).is_ok());
    let inspection = inspect(dir.path()).unwrap();
    assert_eq!((inspection.layers, inspection.experts, inspection.context_length), (2, 4, 160));
}

#[test]
fn header_length() {
    assert_eq!(header_rule(b"abc"), HeaderRule::TooShort { bytes: 3 });
    assert_eq!(header_rule(b""), HeaderRule::TooShort { bytes: 0 });
    for length in [3, u64::MAX, 200 << 20] {
        let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
        assert_eq!(header_rule(&bytes), HeaderRule::HeaderLength { length, file: 10 });
    }
}

#[test]
fn header_that_is_no_object_of_tensors() {
    for header in ["[]", "{", "{\"a\": 1}", "nonsense", &"[".repeat(5000), "{\"a\":{\"dtype\":\"F32\"}}"] {
        assert!(matches!(header_rule(&file(header, &[])), HeaderRule::NotTensors { .. }), "{header}");
    }
    let not_utf8 = [&4u64.to_le_bytes()[..], &[b'{', 0xff, 0xfe, b'}']].concat();
    assert!(matches!(header_rule(&not_utf8), HeaderRule::NotTensors { .. }));
    let negative = json!({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]});
    assert!(matches!(entry(negative, 4), HeaderRule::NotTensors { .. }));
}

#[test]
fn a_name_that_is_listed_twice() {
    let twice = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    assert_eq!(header_rule(&file(twice, &[0; 2])), HeaderRule::Duplicate { tensor: "a".into() });
}

#[test]
fn offsets_that_lie() {
    let a = || "a".to_owned();
    let tensor = |shape: Value, begin: u64, end: u64| json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]});
    assert_eq!(entry(tensor(json!([1]), 8, 4), 16), HeaderRule::Reversed { tensor: a(), begin: 8, end: 4 });
    assert_eq!(
        entry(tensor(json!([4]), 0, 16), 15),
        HeaderRule::PastEnd { tensor: a(), end: 16, available: 15 }
    );
    assert_eq!(
        entry(tensor(json!([4]), u64::MAX - 16, u64::MAX), 15),
        HeaderRule::PastEnd { tensor: a(), end: u64::MAX, available: 15 }
    );
    for shape in [json!([5]), json!([3]), json!([0]), json!([u64::MAX, u64::MAX]), json!([u64::MAX, 0])] {
        assert!(matches!(entry(tensor(shape, 0, 16), 16), HeaderRule::Size { .. }));
    }
    assert_eq!(entry(tensor(json!([1]), 4, 8), 8), HeaderRule::Gap { bytes: 4, before: Some(a()) });
    assert_eq!(entry(tensor(json!([1]), 0, 4), 8), HeaderRule::Gap { bytes: 4, before: None });
    let rank = json!({"dtype": "U8", "shape": [1, 1, 1, 1, 1, 1, 1, 1, 1], "data_offsets": [0, 1]});
    assert_eq!(entry(rank, 1), HeaderRule::Rank { tensor: a(), rank: 9 });
    let unknown = json!({"dtype": "Q7", "shape": [1], "data_offsets": [0, 1]});
    assert_eq!(entry(unknown, 1), HeaderRule::UnknownDtype { tensor: a(), dtype: "Q7".into() });
    let overlap = json!({"a": tensor(json!([2]), 0, 8), "b": tensor(json!([2]), 4, 12)}).to_string();
    let rule = header_rule(&file(&overlap, &[0; 12]));
    assert_eq!(rule, HeaderRule::Overlap { first: a(), second: "b".into() });
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = safetensors(&tensors(&config(), 1));
    for cut in [0, 1, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        let dir = with_weights(&whole[..cut]);
        let text = refused(dir.path()).to_string();
        assert!(text.contains("model.safetensors"), "{text}");
    }
}

#[test]
fn tensors_that_do_not_fit_the_config() {
    let q = "model.layers.1.self_attn.q_proj.weight";
    let find = |tensors: &[Tensor], name: &str| tensors.iter().position(|t| t.name == name).unwrap();

    let missing = with_tensors(|t| t.retain(|tensor| tensor.name != q));
    assert!(matches!(refused(missing.path()), LoadError::MissingTensor { tensor, .. } if tensor == q));

    let reshaped = with_tensors(|t| {
        let at = find(t, q);
        t[at].shape = vec![12, 48];
    });
    match refused(reshaped.path()) {
        LoadError::WrongShape { tensor, expected, found, .. } => {
            assert_eq!((&*tensor, expected, found), (q, vec![24, 24], vec![12, 48]));
        }
        other => panic!("{other}"),
    }

    let integers = with_tensors(|t| {
        let at = find(t, q);
        t[at].dtype = "I16";
    });
    assert!(matches!(refused(integers.path()), LoadError::WrongDtype { found, .. } if found == "I16"));

    let flat = with_tensors(|t| {
        let at = find(t, "model.norm.weight");
        t[at].shape = vec![24, 1];
    });
    assert!(matches!(refused(flat.path()), LoadError::WrongShape { .. }));

    let extra = with_tensors(|t| {
        t.push(Tensor { name: "rotary.inv_freq".into(), dtype: "F64", shape: vec![1], bytes: vec![0; 8] });
    });
    assert!(load(extra.path()).is_ok(), "a tensor that nobody asks for is no fault");
}

/// One matrix of the good folder in fp8 with scales for blocks of 10 × 10, and then something changed.
fn with_fp8(change: impl FnOnce(&mut Value, &mut Vec<Tensor>)) -> TempDir {
    let (dir, mut config, mut tensors) = (tempfile::tempdir().unwrap(), config(), tensors(&config(), 1));
    config["quantization_config"] = json!({"quant_method": "fp8", "weight_block_size": [10, 10]});
    let matrix = tensors.iter_mut().find(|tensor| tensor.name == FP8).unwrap();
    (matrix.dtype, matrix.bytes) = ("F8_E4M3", vec![0x38; 24 * 24]);
    let bytes = [0.5f32; 9].iter().flat_map(|scale| scale.to_le_bytes()).collect();
    tensors.push(Tensor { name: format!("{FP8}_scale_inv"), dtype: "F32", shape: vec![3, 3], bytes });
    change(&mut config, &mut tensors);
    write(dir.path(), &config, &tensors);
    dir
}

const FP8: &str = "model.layers.1.self_attn.q_proj.weight";

#[test]
fn fp8_without_its_scales() {
    assert!(load(with_fp8(|_, _| {}).path()).is_ok());
    let scales = format!("{FP8}_scale_inv");
    let fp8 = |more: Value| json!({"quant_method": "fp8", "weight_block_size": more});
    for config in [json!(null), json!({"quant_method": "fp8"}), fp8(json!(null))] {
        let dir = with_fp8(|c, _| c["quantization_config"] = config);
        assert!(matches!(refused(dir.path()), LoadError::NoFp8Blocks { tensor, .. } if tensor == FP8));
    }
    for (sizes, says) in [
        (json!([0, 10]), "weight_block_size is 0"),
        (json!([10, u64::MAX]), "weight_block_size is 18446744073709551615"),
        (json!([10]), "config.json is not what it should be"),
        (json!([10, -1]), "config.json is not what it should be"),
        (json!("10"), "config.json is not what it should be"),
    ] {
        let dir = with_fp8(|c, _| c["quantization_config"]["weight_block_size"] = sizes);
        let text = refused(dir.path()).to_string();
        assert!(text.contains(says), "{text}");
    }

    let missing = with_fp8(|_, t| t.retain(|tensor| tensor.name != scales));
    assert!(matches!(refused(missing.path()), LoadError::MissingTensor { tensor, .. } if tensor == scales));
    for shape in [vec![9], vec![1, 9], vec![3, 3, 1]] {
        let dir =
            with_fp8(|_, t| t.iter_mut().filter(|t| t.name == scales).for_each(|t| t.shape = shape.clone()));
        let expected = [3, 3];
        assert!(
            matches!(refused(dir.path()), LoadError::WrongShape { tensor, expected: e, .. } if tensor == scales && e == expected)
        );
    }
    for (dtype, size) in [("I32", 4), ("F8_E4M3", 1)] {
        let dir = with_fp8(|_, t| {
            let scales = t.iter_mut().find(|tensor| tensor.name == scales).unwrap();
            (scales.dtype, scales.bytes) = (dtype, vec![0; 9 * size]);
        });
        assert!(matches!(refused(dir.path()), LoadError::WrongDtype { found, .. } if found == dtype));
    }
    let vector = with_fp8(|_, t| {
        let norm = t.iter_mut().find(|tensor| tensor.name == "model.norm.weight").unwrap();
        (norm.dtype, norm.bytes) = ("F8_E4M3", vec![0x38; 24]);
    });
    assert!(matches!(refused(vector.path()), LoadError::WrongDtype { found, .. } if found == "F8_E4M3"));
}

/// The good model in two shards, with a changed index.
fn sharded(change: impl FnOnce(&mut Value)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let all = tensors(&config(), 1);
    write(dir.path(), &config(), &all);
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let (left, right) = all.split_at(7);
    let mut map = serde_json::Map::new();
    for (name, part) in [("one.safetensors", left), ("two.safetensors", right)] {
        std::fs::write(dir.path().join(name), safetensors(part)).unwrap();
        map.extend(part.iter().map(|tensor| (tensor.name.clone(), name.into())));
    }
    let mut index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    change(&mut index);
    std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    dir
}

#[test]
fn shards() {
    let norm = "model.norm.weight";
    assert!(load(sharded(|_| {}).path()).is_ok());
    for outside in
        ["../one.safetensors", "/one.safetensors", "a/one.safetensors", "./one.safetensors", "..", "", "a\0b"]
    {
        let dir = sharded(|index| index["weight_map"][norm] = outside.into());
        let error = refused(dir.path());
        assert!(matches!(&error, LoadError::ShardOutside { tensor, .. } if tensor == norm), "{error}");
    }
    let dir = sharded(|index| index["weight_map"][norm] = "three.safetensors".into());
    let error = refused(dir.path());
    assert!(
        matches!(&error, LoadError::ShardMissing { shard, .. } if shard == "three.safetensors"),
        "{error}"
    );
    let dir = sharded(|index| index["weight_map"][norm] = "two.safetensors".into());
    assert!(matches!(refused(dir.path()), LoadError::NotInShard { tensor, .. } if tensor == norm));
    let dir = sharded(|index| drop(index["weight_map"].as_object_mut().unwrap().remove(norm)));
    assert!(matches!(refused(dir.path()), LoadError::MissingTensor { .. }));
    let dir = sharded(|index| index["weight_map"] = json!([1]));
    assert!(matches!(refused(dir.path()), LoadError::Json { .. }));
    let dir = sharded(|_| {});
    let twice = format!(r#"{{"weight_map":{{"{norm}":"one.safetensors","{norm}":"one.safetensors"}}}}"#);
    std::fs::write(dir.path().join("model.safetensors.index.json"), twice).unwrap();
    assert!(matches!(refused(dir.path()), LoadError::ListedTwice { .. }));
}

#[test]
fn files_that_are_not_there() {
    let dir = with_tensors(|_| {});
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    assert!(
        matches!(refused(dir.path()), LoadError::MissingFile { path } if path.ends_with("model.safetensors"))
    );
    std::fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    assert!(
        matches!(refused(dir.path()), LoadError::NotAFile { path } if path.ends_with("model.safetensors"))
    );
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    assert!(matches!(refused(dir.path()), LoadError::MissingFile { path } if path.ends_with("config.json")));
    std::os::unix::fs::symlink("config.json", dir.path().join("config.json")).unwrap();
    assert!(matches!(refused(dir.path()), LoadError::NotAFile { path } if path.ends_with("config.json")));
    assert!(matches!(refused(&dir.path().join("nowhere")), LoadError::Folder { .. }));
}

#[test]
fn configs_that_lie() {
    for (changes, says) in [
        (json!({"num_hidden_layers": 1_000_000_000_000u64}), "num_hidden_layers is 1000000000000"),
        (json!({"num_attention_heads": 0}), "num_attention_heads is 0"),
        (json!({"num_key_value_heads": 3}), "is not a multiple of"),
        (json!({"num_experts_per_tok": 5}), "num_experts_per_tok (5) is more than"),
        (json!({"vocab_size": null}), "vocab_size is missing"),
        (json!({"hidden_act": "relu"}), "hidden_act is relu"),
        (json!({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4}}), "rope_type is dynamic"),
        (json!({"num_hidden_layers": 3}), "model.layers.2.input_layernorm.weight\" is missing"),
        (json!({"vocab_size": 62}), "model.embed_tokens.weight\" has shape [61, 24]"),
        (json!({"architectures": ["MixtralForCausalLN"]}), "nearest: MixtralForCausalLM"),
        (json!({"architectures": []}), "known: MixtralForCausalLM"),
        (json!({"architectures": 7}), "config.json is not what it should be"),
    ] {
        let text = refused(with_config(changes).path()).to_string();
        assert!(text.contains(says) && text.contains(".json") | text.contains("safetensors"), "{text}");
    }
}

/// A context that is only claimed must not cost memory before somebody uses it.
#[test]
fn a_giant_claimed_context_is_not_allocated() {
    let dir = with_config(json!({"max_position_embeddings": 1 << 24}));
    let before = resident();
    let engine = load(dir.path()).unwrap();
    assert_eq!(engine.context_length(), 1 << 24);
    assert!(resident() - before < 64 << 20, "{} bytes", resident() - before);
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn options_that_cannot_be_met() {
    let dir = with_tensors(|_| {});
    for (options, says) in [
        (EngineOptions { context_length: Some(161), ..options() }, "was made for 160"),
        (EngineOptions { context_length: Some(0), ..options() }, "the context length is 0"),
        (EngineOptions { max_running: 0, ..options() }, "is 0"),
        (EngineOptions { step_tokens: 0, ..options() }, "is 0"),
        (EngineOptions { mixed_prompt_tokens: 0, ..options() }, "is 0"),
        (
            EngineOptions { context_length: Some(50), cache_tokens: Some(49), ..options() },
            "one request of 50",
        ),
        (EngineOptions { cache_tokens: Some(1 << 33), ..options() }, "more than can be addressed"),
    ] {
        let error = Engine::load(dir.path(), &options, &|_| {}).err().unwrap();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.reason(), TerminationReason::LaunchRejected);
    }
}

/// No machine has code for GPUs at a path that is empty, and most have no GPU.
#[test]
fn a_gpu_that_cannot_be_used() {
    let options = EngineOptions { device: Device::Gpu, ..options() };
    let error = Engine::load(with_tensors(|_| {}).path(), &options, &|_| {}).err().unwrap();
    assert!(error.to_string().starts_with("no GPU can be used: "), "{error}");
    assert!(matches!(error, LoadError::NoGpu(_)));
}
