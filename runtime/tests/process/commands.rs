//! `inspect` and `bench`.

use crate::folder::{CONTEXT, run, whole};
use coterie_api::launch::Inspection;
use serde_json::Value;
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
