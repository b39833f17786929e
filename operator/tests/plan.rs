//! `coterie-operator plan` as people and scripts meet it: what it prints, and how it exits.

#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn input(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan").join(name)
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/minimax-text-01").join(name)
}

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coterie-operator"));
    command.env_remove("RUNTIME_IMAGE").arg("plan").args(args).output().unwrap()
}

fn planned([deployment, config, nodes]: [&Path; 3], more: &[&str]) -> (Option<i32>, String) {
    let [deployment, config, nodes] = [deployment, config, nodes].map(|path| path.to_str().unwrap());
    let output = run(&[&["-f", deployment, "--model-config", config, "--nodes", nodes], more].concat());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

fn minimax(nodes: &str, more: &[&str]) -> (Option<i32>, String) {
    planned([&example("modeldeployment.yaml"), &example("config.json"), &input(nodes)], more)
}

fn mixtral(more: &[&str]) -> (Option<i32>, String) {
    planned([&input("mixtral.yaml"), &input("mixtral-8x7b.json"), &input("cpus.yaml")], more)
}

/// The table that is committed, which is what docs and reviews are about.
#[track_caller]
fn same_table(name: &str, printed: &str) {
    let expected = std::fs::read_to_string(input(name)).unwrap();
    assert_eq!(printed, expected, "{name}; it now prints\n{printed}");
}

#[test]
fn minimax_in_int8_fits_eight_gpus_with_a_million_tokens() {
    let (code, table) = minimax("eight-gpus.yaml", &[]);
    same_table("eight-gpus.txt", &table);
    assert_eq!(code, Some(0));
}

#[test]
fn minimax_does_not_fit_four_gpus_and_what_would_is_told() {
    let (code, table) = minimax("four-gpus.yaml", &[]);
    same_table("four-gpus.txt", &table);
    assert_eq!(code, Some(3));
}

#[test]
fn what_one_node_cannot_hold_is_spread_over_ranks() {
    let (code, table) = mixtral(&[]);
    same_table("cpus.txt", &table);
    assert_eq!(code, Some(0));
}

#[test]
fn json_has_the_whole_plan() {
    let (code, text) = minimax("eight-gpus.yaml", &["-o", "json"]);
    assert_eq!(code, Some(0));
    let plan: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&plan["fits"], &plan["estimated"]), (&true.into(), &true.into()));
    assert_eq!((&plan["quantization"], &plan["contextLength"]), (&"Int8".into(), &1_048_576.into()));
    let capacity = &plan["capacity"];
    assert_eq!((&capacity["device"], &capacity["ranks"]), (&"Gpu".into(), &1.into()));
    assert_eq!(capacity["gpusPerRank"], 8);
    let parts = capacity["parts"].as_object().unwrap();
    let names: Vec<&str> = parts.keys().map(String::as_str).collect();
    assert_eq!(names, ["weights", "experts", "kvCache", "state", "working"]);
    assert_eq!(parts["kvCache"], 40_u64 << 30);
    let sum: u64 = parts.values().filter_map(Value::as_u64).sum();
    let needed = capacity["needed"].as_u64().unwrap();
    assert!(needed > sum && needed < sum / 100 * 106, "{needed} is {sum} with headroom");
    assert_eq!(capacity["largestNode"], (8 * 81_559_u64) << 20);
    assert_eq!(capacity["free"], capacity["largestNode"]);
    assert_eq!((&plan["nodes"][0]["name"], &plan["nodes"][0]["ranks"]), (&"gpu-a".into(), &1.into()));
    assert_eq!(plan["model"]["expertBytes"]["int8"], 434_865_438_720_u64 / 16 * 17);
    assert_eq!(plan["model"]["devices"], Value::Array(Vec::new()), "no device can serve it yet");
    assert!(!plan["notes"].as_array().unwrap().is_empty() && !plan["objects"].as_array().unwrap().is_empty());

    let (code, text) = minimax("four-gpus.yaml", &["-o", "json"]);
    assert_eq!(code, Some(3));
    let plan: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(plan["fits"], false);
    assert!(plan["capacity"]["wouldFit"].as_str().unwrap().starts_with("add a node with 8 GPUs"), "{plan:#}");
}

#[test]
fn yaml_has_status_and_objects() {
    let (code, text) = mixtral(&["-o", "yaml"]);
    assert_eq!(code, Some(0));
    for line in
        ["# Pod mixtral-0", "# Service mixtral\n", "kind: Pod\n", "# sizes are estimated from config.json"]
    {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn what_is_asked_for_explicitly_and_cannot_be_served_does_not_fit() {
    let text = std::fs::read_to_string(input("mixtral.yaml")).unwrap();
    let on_gpus = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mixtral-on-gpus.yaml");
    std::fs::write(&on_gpus, text + "  accelerator: {device: Gpu}\n").unwrap();
    let nodes = input("eight-gpus.yaml");
    let (code, table) = planned([&on_gpus, &input("mixtral-8x7b.json"), &nodes], &[]);
    assert_eq!(code, Some(3));
    assert!(table.contains("this build of the runtime cannot serve MixtralForCausalLM on GPUs"), "{table}");
}

#[test]
fn a_wrong_file_is_1_and_a_wrong_command_line_2() {
    let (file, nodes) = (example("modeldeployment.yaml"), input("eight-gpus.yaml"));
    let [file, nodes] = [&file, &nodes].map(|path| path.to_str().unwrap());
    // Nodes are no config.
    let output = run(&["-f", file, "--model-config", nodes, "--nodes", nodes]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("eight-gpus.yaml: it is no JSON"), "{told}");
    let neither = run(&["-f", file, "--nodes", nodes]);
    assert_eq!(neither.status.code(), Some(2), "no model");
    let told = String::from_utf8(neither.stderr).unwrap();
    assert!(told.contains("--inspection") && told.contains("--model-config"), "{told}");
    let empty = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-nodes.yaml");
    std::fs::write(&empty, "kind: List\nitems: []\n").unwrap();
    let output = run(&["-f", file, "--model-config", file, "--nodes", empty.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "a file without nodes is the wrong file");
    let both = ["-f", file, "--nodes", nodes, "--model-config", file, "--inspection", file];
    assert_eq!(run(&both).status.code(), Some(2), "two models");
}
