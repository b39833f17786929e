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
