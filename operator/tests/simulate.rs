//! `coterie-operator simulate` as people and scripts meet it: what it prints, and how it exits.

#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coterie-operator"));
    command.arg("simulate").args(args).output().unwrap()
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn printed(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refused(args: &[&str], words: &str, code: i32) {
    let output = run(args);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(words), "{words:?} is not in {told:?}");
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(output.stdout.is_empty());
}

fn rows(args: &[&str]) -> Vec<Value> {
    serde_json::from_str(&printed(&[args, &["-o", "json"]].concat())).unwrap()
}

#[test]
fn json_has_an_object_for_each_policy() {
    let rows = rows(&["--synthetic", "conversation", "--seconds", "300"]);
    let policies: Vec<&str> = rows.iter().map(|row| row["policy"].as_str().unwrap()).collect();
    let best = ["hpa", "hpa-best", "keda", "keda-best", "kpa", "kpa-best", "apa", "apa-best"];
    assert_eq!(policies, [&["static", "coterie", "oracle"][..], &best].concat());
    for row in &rows {
        for share in ["slo_attainment", "ttft_attainment", "itl_attainment"] {
            assert!((0.0..=1.0).contains(&row[share].as_f64().unwrap()), "{row}");
        }
        assert!(row["replica_hours"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["overshoot"].as_f64().unwrap() > 0.0 && row["decisions"].is_u64(), "{row}");
    }
    let (fixed, ours) = (&rows[0], &rows[1]);
    assert!(
        fixed["slo_attainment"].as_f64().unwrap() >= 0.995,
        "the smallest static fleet that is good enough"
    );
    assert_eq!((&fixed["decisions"], &ours["target"]), (&0.into(), &Value::Null));
}

#[test]
fn a_written_trace_gives_the_same_figures() {
    let path = file("code.csv");
    let path = path.to_str().unwrap();
    let common = ["--no-sweep", "--cold-start", "30"];
    let drawn = rows(
        &[&["--synthetic", "code", "--seed", "3", "--seconds", "600", "--write-trace", path], &common[..]]
            .concat(),
    );
    assert!(std::fs::read_to_string(path).unwrap().starts_with("arrival_s,prompt_tokens,output_tokens\n"));
    let read = rows(&[&["--trace", path], &common[..]].concat());
    assert_eq!(drawn.len(), 7);
    assert_eq!(drawn, read);
}

#[test]
fn a_backlog_is_billed_and_decided_upon_until_its_last_answer() {
    // 500 requests in the last second: 78 s of work for one replica that does nothing else.
    let path = file("backlog.csv");
    let requests: String = (0..500).map(|at| format!("{},1000,100\n", 5.0 + f64::from(at) / 500.0)).collect();
    std::fs::write(&path, format!("arrival_s,prompt_tokens,output_tokens\n{requests}")).unwrap();
    let rows = rows(&["--trace", path.to_str().unwrap(), "--no-sweep", "--start", "1", "--cold-start", "30"]);
    for row in &rows {
        assert!(row["replica_hours"].as_f64().unwrap() * 3600.0 > 77.0, "{row}");
    }
    for policy in ["hpa", "keda", "kpa", "apa"] {
        let row = rows.iter().find(|row| row["policy"] == policy).unwrap();
        assert!(row["decisions"].as_u64().unwrap() > 0, "{row}");
    }
}

#[test]
fn the_table_and_the_plot_are_for_people() {
    let plot = file("plot.svg");
    let table = printed(&[
        "--synthetic",
        "conversation",
        "--seconds",
        "200",
        "--no-sweep",
        "--plot",
        plot.to_str().unwrap(),
    ]);
    assert!(!table.contains("do not come back from none"), "{table}");
    let from_none = ["--synthetic", "conversation", "--seconds", "20", "--no-sweep", "--min", "0"];
    assert!(printed(&from_none).ends_with("do not come back from none.\n"));
    for words in ["synthetic conversation: ", "POLICY", "REPLICA HOURS", "\ncoterie", "\nkpa      70", " %"] {
        assert!(table.contains(words), "{words:?} is not in\n{table}");
    }
    let drawing = std::fs::read_to_string(plot).unwrap();
    assert!(drawing.starts_with("<svg ") && drawing.ends_with("</svg>\n"));
    assert!(drawing.matches("<polyline").count() == 12, "six policies, two panels");
    assert!(drawing.len() < 200_000 && !drawing.contains("NaN"));
}

#[test]
fn bad_input_is_1_and_a_wrong_command_line_2() {
    let write = |name: &str, text: &str| {
        std::fs::write(file(name), text).unwrap();
        file(name).to_str().unwrap().to_owned()
    };
    let header = "arrival_s,prompt_tokens,output_tokens\n";
    refused(&["--trace", "/nowhere.csv"], "cannot read /nowhere.csv", 1);
    refused(&["--trace", &write("empty.csv", "")], "does not begin with the line arrival_s", 1);
    refused(&["--trace", &write("none.csv", header)], "has no request", 1);
    refused(&["--trace", &write("nan.csv", &format!("{header}NaN,1,1\n"))], "line 2: arrival_s is NaN", 1);
    refused(&["--trace", &write("back.csv", &format!("{header}2,1,1\n1,1,1\n"))], "sort the trace", 1);
    refused(&["--synthetic", "code", "--seconds", "0"], "--seconds is 0", 1);
    refused(&["--synthetic", "code", "--prefill", "NaN"], "--prefill is NaN", 1);
    refused(&["--synthetic", "code", "--min", "5", "--max", "4"], "lower the one", 1);
    refused(&["--synthetic", "code", "--start", "9", "--max", "4"], "--start is 9", 1);
    refused(&["--synthetic", "code", "--queue-target", "0"], "--queue-target", 2);
    refused(&["--synthetic", "code", "--idle", "0"], "--idle", 2);
    refused(&[], "<--trace <TRACE>|--synthetic <SYNTHETIC>>", 2);
    refused(&["--synthetic", "poems"], "poems", 2);
    refused(&["--synthetic", "code", "--trace", "x.csv"], "cannot be used with", 2);
}
