//! `inspect` and `bench`.

use crate::folder::{CONTEXT, coterie, run, whole};
use coterie_api::launch::{Inspection, TerminationReason};
use coterie_engine::weights::safetensors::Header;
use serde_json::{Map, Value, json};
use std::path::Path;

#[test]
fn inspect_tells_people_and_the_operator() {
    let dir = whole();
    let (output, log) = run(&["inspect", "--output", "json"], dir.path());
    assert!(output.status.success());
    let printed: Inspection = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(serde_json::from_str::<Inspection>(&log.read()).unwrap(), printed);
    assert_eq!(
        (printed.experts, printed.experts_per_token, u64::from(printed.context_length)),
        (4, 2, CONTEXT)
    );
    assert!(printed.digest.starts_with("sha256:"));

    let (output, log) = run(&["inspect"], dir.path());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("MixtralForCausalLM") && text.contains("as Int8"), "{text}");
    assert_eq!(serde_json::from_str::<Inspection>(&log.read()).unwrap(), printed);
}

#[test]
fn without_weights_a_model_is_described_from_its_index() {
    let dir = whole();
    let weights = dir.path().join("model.safetensors");
    let names = Header::parse(&std::fs::read(&weights).unwrap()).unwrap().tensors;
    let named: Map<String, Value> = names.into_keys().map(|name| (name, "1.safetensors".into())).collect();
    let tensors = named.len();
    std::fs::remove_file(weights).unwrap();
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    let index = json!({"metadata": {"total_size": 4711}, "weight_map": named}).to_string();
    std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();

    let nowhere = dir.path().join("no-log");
    let output = coterie(&["inspect", "--termination-log"]).arg(&nowhere).arg(dir.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [&format!("tensors       {tensors} in 1 files, 4711 bytes"), "missing       none", "as Int8"]
    {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert!(!nowhere.exists());

    // In a pod it is to be served, and cannot be.
    let (output, log) = run(&["inspect"], dir.path());
    assert_eq!((output.status.code(), String::from_utf8(output.stdout).unwrap()), (Some(2), text));
    let termination = log.termination();
    assert_eq!(termination.reason, TerminationReason::ModelRejected);
    assert!(termination.message.contains("1.safetensors"), "{termination:?}");
}

#[test]
fn bench_prints_one_json_object() {
    let dir = whole();
    for quantization in ["none", "int8"] {
        let more =
            ["--prompt-tokens", "40", "--generate", "5", "--batch", "3", "--runs", "2", "--threads", "1"];
        let (output, _) = run(&[&["bench", "--quantization", quantization], &more[..]].concat(), dir.path());
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 1);
        let report: Value = serde_json::from_str(&text).unwrap();
        for figure in ["prefill_tok_s", "decode_tok_s", "load_s", "peak_rss_bytes"] {
            assert!(report[figure].as_f64().unwrap() > 0.0, "{figure} in {report}");
        }
        assert_eq!((&report["quantization"], &report["batch"]), (&quantization.into(), &3.into()));
        assert_eq!((&report["speculate"], &report["draft_tokens"]), (&"none".into(), &0.into()));
    }
}

#[test]
fn bench_counts_what_was_drafted_and_what_came() {
    // This one repeats itself.
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/minimax_m2/odd-heads");
    let repeating = ["--prompt-tokens", "24", "--repeat-after", "4", "--generate", "60", "--runs", "1"];
    let (output, _) = run(&[&["bench", "--speculate", "lookup"], &repeating[..]].concat(), &dir);
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [drafted, accepted] = ["draft_tokens", "accepted_tokens"].map(|key| report[key].as_u64().unwrap());
    assert!(drafted > 0 && accepted <= drafted, "{report}");
    assert!(report["tokens_a_draft"].as_f64().unwrap() >= 1.0, "{report}");
}

/// Without a GPU the whole command can still be tried out on the CPU, with a model that is written for it.
#[test]
fn bench_gpu_prints_figures_beside_what_memory_allows() {
    let (config, made) = (whole(), tempfile::tempdir().unwrap());
    std::fs::remove_file(config.path().join("model.safetensors")).unwrap();
    let folder = |dir: &tempfile::TempDir| dir.path().to_str().unwrap().to_owned();
    let (config, made) = (folder(&config), folder(&made));
    let args = ["bench", "gpu", "--config", &config, "--load", &made, "--device", "cpu", "--threads", "1"];
    let more = [
        "--quantization",
        "int8",
        "--batch",
        "1,3",
        "--context",
        "20",
        "--steps",
        "4",
        "--step-tokens",
        "16",
    ];
    let all = [&args[..], &more[..], &["--bandwidth", "10", "-o", "json"]].concat();
    let output = coterie(&all).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let decode = report["decode"].as_array().unwrap();
    assert_eq!(decode.iter().map(|figure| figure["batch"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3]);
    for figure in decode.iter().chain([&report["prefill"]]) {
        let of = |key: &str| figure[key].as_f64().unwrap();
        assert!(of("tok_s") > 0.0 && of("seconds") > 0.0 && of("weight_bytes") > 0.0, "{report}");
        assert!((of("tok_s") / of("roofline_tok_s") - of("share_of_roofline")).abs() < 1e-9, "{report}");
    }
    assert!(decode[0]["weight_bytes"].as_f64() < decode[1]["weight_bytes"].as_f64(), "{report}");
    assert!(decode[1]["context"].as_u64().unwrap() > 20, "{report}");
    let load = &report["load"];
    assert!(load["bytes"].as_u64().unwrap() > 0 && load["bytes_s"].as_f64().unwrap() > 0.0, "{report}");
    assert!(Path::new(&made).join("model.safetensors").exists());
    let text = coterie(&[&args[..], &more[..]].concat()).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("decode, batch 3, behind") && text.contains("load: "), "{text}");
}

#[test]
fn bench_gpu_says_why_there_is_no_gpu() {
    let config = whole();
    let args = ["bench", "gpu", "--config", config.path().to_str().unwrap()];
    let output = coterie(&args).env("COTERIE_CUBINS", "/nowhere").output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no GPU can be used: "), "{said}");
}
