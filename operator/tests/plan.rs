//! `coterie-operator plan` as people and scripts meet it: what it prints, and how it exits.

#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::{Value, json};
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

/// The table that is committed, which is what reviews are about; those that people read are in docs/plans.md.
#[track_caller]
fn same_table(name: &str, printed: &str) {
    let expected = std::fs::read_to_string(input(name)).unwrap();
    assert_eq!(printed, expected, "{name}; it now prints\n{printed}");
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
    assert_eq!((&plan["model"]["devices"], &plan["served"]), (&json!(["Cpu"]), &false.into()));
    let today = plan["today"].as_str().unwrap();
    assert!(today.starts_with("the runtime of this version serves this family on: cpu; today"), "{today}");
    assert!(!plan["notes"].as_array().unwrap().is_empty() && !plan["objects"].as_array().unwrap().is_empty());

    let (code, text) = minimax("four-gpus.yaml", &["-o", "json"]);
    assert_eq!(code, Some(3));
    let plan: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(plan["fits"], false);
    assert_eq!(plan["capacity"]["wouldFit"], "model.contextLength: 644864", "{plan:#}");
}

#[test]
fn yaml_has_status_and_objects() {
    let (code, text) = mixtral(&["-o", "yaml"]);
    assert_eq!(code, Some(0));
    for line in [
        "# Pod mixtral-0",
        "# Service mixtral\n",
        "kind: Pod\n",
        "# sizes are estimated from config.json",
        "# it fits: ",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

/// The ModelDeployment of Mixtral, on GPUs.
fn mixtral_on_gpus() -> PathBuf {
    let text = std::fs::read_to_string(input("mixtral.yaml")).unwrap();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mixtral-on-gpus.yaml");
    std::fs::write(&path, text + "  accelerator: {device: Gpu}\n").unwrap();
    path
}

#[test]
fn what_the_runtime_found_it_cannot_serve_does_not_fit() {
    let inspection = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mixtral-inspection.json");
    let (_, plan) = mixtral(&["-o", "json"]);
    let plan: Value = serde_json::from_str(&plan).unwrap();
    std::fs::write(&inspection, plan["model"].to_string()).unwrap();
    let (spec, nodes) = (mixtral_on_gpus(), input("eight-gpus.yaml"));
    let [spec, nodes, inspection] = [&spec, &nodes, &inspection].map(|path| path.to_str().unwrap());
    let output = run(&["-f", spec, "--inspection", inspection, "--nodes", nodes]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{table}");
    assert!(table.contains("this build of the runtime cannot serve MixtralForCausalLM on GPUs"), "{table}");
}

#[test]
fn from_a_config_any_device_is_planned_for_and_what_the_runtime_serves_is_told_beside_it() {
    let on_gpus = mixtral_on_gpus();
    let (code, table) = planned([&on_gpus, &input("mixtral-8x7b.json"), &input("eight-gpus.yaml")], &[]);
    assert_eq!(code, Some(0), "{table}");
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("it fits: None with a context of 32768 tokens, in 1 rank of 2 GPUs"));
    assert_eq!(
        lines.next(),
        Some(
            "the runtime of this version serves this family on: cpu; today the operator turns accelerator.device: Gpu \
             away (DeviceUnsupported); on the CPU it fits: None with a context of 32768 tokens, in 1 rank on the CPU"
        )
    );
    let (code, text) = mixtral(&["-o", "json"]);
    let plan: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &plan["served"]), (Some(0), &true.into()));
    assert_eq!(plan["today"], "the runtime of this version serves this family on: cpu");
}

#[test]
fn from_a_config_int4_is_told_to_be_turned_away_today() {
    let text = std::fs::read_to_string(input("mixtral.yaml")).unwrap();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mixtral-int4.yaml");
    let int4 = text.replace("quantization: None", "quantization: Int4");
    assert_ne!(int4, text);
    std::fs::write(&path, int4).unwrap();
    let (code, table) = planned([&path, &input("mixtral-8x7b.json"), &input("eight-gpus.yaml")], &[]);
    assert_eq!(code, Some(0), "{table}");
    let today = "today the operator turns model.quantization: Int4 away (DeviceUnsupported); without it, on the CPU it fits: ";
    assert!(table.contains(today), "{table}");
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
