//! Reports of runs that were never made: the numbers are chosen so that shares are easy to see.

use super::goals::{self, Met};
use super::*;

fn made_up(by: &str, op: &str, of: &str, format: &str, rows: u64, seconds: f64) -> Value {
    let (bytes, flop) = if op == "copy" { (4e12, 0.0) } else { (3.6e12, 1e15) };
    json!({
        "by": by, "op": op, "of": of, "format": format, "rows": rows,
        "seconds": seconds, "noise": 0.02, "bytes": bytes, "flop": flop, "error": 1e-3, "part": "speed",
    })
}

fn part(name: &str, state: &str, why: &str) -> Value {
    json!({"name": name, "state": state, "seconds": 7, "why": why, "log": ["the last words"]})
}

/// A run in which every goal is reached: copies of 4 TB/s, decodes at 90 % of them, prefills at 80 % of cuBLAS.
fn whole() -> Value {
    let mut figures = vec![made_up("coterie", "copy", "within the memory", "", 0, 1.0)];
    for rows in [1, 16] {
        figures.push(made_up("coterie", "attention", "32 heads", "bf16", rows, 1.0));
        figures.push(made_up("coterie", "experts", "Mixtral", "int4", rows, 1.0));
    }
    for format in ["bf16", "fp8"] {
        figures.push(made_up("coterie", "experts", "Mixtral", format, 4096, 1.0));
        figures.push(made_up("cublas", "dense", "Mixtral", format, 4096, 0.8));
        figures.push(made_up("triton", "experts", "Mixtral", format, 4096, 1.5));
    }
    figures.push(json!({
        "quantization": "int4", "part": "model-int4", "load": {"share_of_bound": 0.9},
        "decode": [{"batch": 1, "share_of_roofline": 0.9}, {"batch": 16, "share_of_roofline": 0.81}],
    }));
    let machine = json!({"date": "2030-01-01 00:00 UTC", "command": "cargo xtask gpu", "GPU": "Made Up 1"});
    json!({"machine": machine, "parts": [part("kernels", "passed", "")], "figures": figures})
}

#[test]
fn goals_that_every_case_reaches_are_reached() {
    let goals = goals::of(&whole());
    assert!(goals.iter().all(|goal| goal.met == Met::Yes), "{goals:#?}");
    assert_eq!(goals[0].measured, "2 of 2 cases; the least is 90 % (32 heads, bf16, 1 rows)");
    assert_eq!(goals[2].measured, "2 of 2 cases; the least is 80 % (Mixtral, bf16, 4096 rows)");
    assert_eq!(goals[3].measured, "2 of 2 cases; the least is 150 % (Mixtral, bf16, 4096 rows)");
    assert_eq!(goals[4].measured, "2 of 2 cases; the least is 81 % (int4, batch 16)");
    assert_eq!(goals[5].measured, "1 of 1 cases; the least is 90 % (int4)");
}

#[test]
fn one_case_that_misses_a_goal_is_named() {
    for (at, slower) in [
        (0, made_up("coterie", "attention", "slow", "bf16", 4, 1.1)),
        (1, made_up("coterie", "experts", "slow", "int8", 4, 1.1)),
        (3, made_up("coterie", "experts", "slow", "fp8", 4096, 1.0)),
    ] {
        let mut report = whole();
        let figures = report["figures"].as_array_mut().unwrap();
        figures.push(slower);
        figures.push(made_up("triton", "experts", "slow", "fp8", 4096, 0.9));
        let goals = goals::of(&report);
        assert_eq!(goals[at].met, Met::No, "{goals:#?}");
        assert!(goals[at].measured.contains("slow"), "{}", goals[at].measured);
        assert_eq!(goals.iter().filter(|goal| goal.met == Met::No).count(), 1);
    }
}

#[test]
fn what_was_not_measured_is_not_reached() {
    let report = json!({"machine": {}, "parts": [part("speed", "FAILED", "status 1")], "figures": []});
    assert!(goals::of(&report).iter().all(|goal| goal.met == Met::Unknown));
    let page = markdown::of(&report);
    for words in [
        "NOT CHECKED OR NOT MEASURED",
        "says nothing about speed",
        "speed: FAILED, status 1",
        "> the last words",
    ] {
        assert!(page.contains(words), "{words}:\n{page}");
    }
    assert_eq!(page.matches("**not measured**").count(), goals::of(&report).len());
}

#[test]
fn the_page_has_machine_goals_and_figures() {
    let page = markdown::of(&whole());
    for words in [
        "- GPU: Made Up 1",
        "| yes | 2 of 2 cases",
        "| kernels | passed | 7 |",
        "| coterie | copy within the memory | 1.00 s | 4.00 TB/s | 2 % |",
        "| attention | 32 heads | bf16 | 1 | 1.00 s | 3.60 TB/s | 90 % | 2 % | 1e-3 |  |  |",
        "| experts | Mixtral | fp8 | 4096 | 1.00 s | 1000.00 TFLOP/s | 80 % | 1.50 s | 1.50 × | 2 % | 1e-3 |  |",
        r#""share_of_roofline":0.81"#,
    ] {
        assert!(page.contains(words), "{words}:\n{page}");
    }
    assert!(!page.contains("NOT CHECKED"), "everything passed");
}

#[test]
fn a_goal_is_not_reached_by_a_part_of_its_cases() {
    let mut report = whole();
    report["parts"].as_array_mut().unwrap().push(part("speed", "CUT OFF", "it did not end within 9 s"));
    let goals = goals::of(&report);
    assert!(goals.iter().all(|goal| goal.met == Met::Partly), "{goals:#?}");
    let page = markdown::of(&report);
    assert!(
        page.contains("**in part** | 2 of 2 cases") && page.contains("speed did not measure all"),
        "{page}"
    );
}

#[test]
fn a_panic_is_told_and_not_what_comes_behind_it() {
    let log = [vec!["before"; 9], vec!["thread panicked at x:", "left", "right"], vec!["behind"; 9]].concat();
    assert_eq!(
        last_words(&log),
        [vec!["thread panicked at x:", "left", "right"], vec!["behind"; 5]].concat()
    );
    assert_eq!(last_words(&["a"; 20]).len(), TAIL);
    assert_eq!(last_words(&["é".repeat(400).as_str()])[0].chars().count(), LONGEST);
    assert!(figure(r#"{"level":"WARN","message":"no figure"}"#).is_none());
}

#[test]
fn what_parts_left_becomes_one_object() {
    let (work, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let put = |name: &str, text: &str| fs::write(work.path().join(name), text).unwrap();
    put("machine", "date\ttoday\nGPU\tMade Up 1\n");
    put("parts", "speed\tpassed\t12\t\npeers\tFAILED\t3\tstatus 1\nmemcheck\tSKIPPED\t0\tnot here\n");
    put(
        "speed.log",
        "warming up\n{\"by\":\"coterie\",\"op\":\"copy\",\"rows\":0,\"seconds\":2e-3,\"bytes\":8000000}\n{ no json\n",
    );
    put("peers.log", "first\n\nTraceback\n");
    let why = write(work.path(), out.path()).unwrap_err().to_string();
    assert!(why.contains("peers, memcheck"), "{why}");
    let json: Value = serde_json::from_slice(&fs::read(out.path().join("gpu.json")).unwrap()).unwrap();
    assert_eq!(json["machine"]["GPU"], "Made Up 1");
    assert_eq!(
        json["parts"][0],
        json!({"name": "speed", "state": "passed", "seconds": 12, "why": "", "log": []})
    );
    assert_eq!(json["parts"][1]["log"], json!(["first", "Traceback"]));
    assert_eq!(json["figures"].as_array().unwrap().len(), 1);
    assert_eq!(figures(&json)[0].bandwidth(), 4e9);
    let page = fs::read_to_string(out.path().join("gpu.md")).unwrap();
    assert!(page.contains("- memcheck: SKIPPED, not here"), "{page}");

    put("parts", "speed\tpassed\t12\t\n");
    write(work.path(), out.path()).unwrap();
    put("parts", "no tabs\n");
    assert!(write(work.path(), out.path()).unwrap_err().to_string().contains("no tabs"));
}
