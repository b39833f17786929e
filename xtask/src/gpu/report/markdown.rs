//! `gpu.md`: the report as people read it, made of nothing but `gpu.json`.

use std::fmt::Write as _;

use serde_json::Value;

use super::goals::{self, Met};
use super::{Figure, by, copied, figures, parts, text};

/// The whole page.
pub fn of(report: &Value) -> String {
    let all = figures(report);
    let mut page = String::from("# The CUDA kernels on a GPU\n");
    page += "Written by `cargo xtask gpu`; edit nothing here, measure again. Times are medians of the GPU's own events behind warm-up, with \
             weights and caches larger than the second cache by turns; noise is how far two rounds of the same are apart. Bytes and operations are \
             counted from sizes: each weight, key and row once. Shares are of what the same run measured.\n\n";
    if let Some(machine) = report["machine"].as_object() {
        for (name, value) in machine {
            let _ = writeln!(page, "- {name}: {}", value.as_str().unwrap_or_default());
        }
    }
    unmeasured(&mut page, report, &all);
    page += "\n## Goals\n| goal | reached | measured |\n|---|---|---|\n";
    for goal in goals::of(report) {
        let met = match goal.met {
            Met::Yes => "yes",
            Met::Partly => "**in part**",
            Met::No => "**no**",
            Met::Unknown => "**not measured**",
        };
        let _ = writeln!(page, "| {} | {met} | {} |", goal.asked, goal.measured);
    }
    ran(&mut page, report);
    bounds(&mut page, &all);
    let ours = |op: &str, few: bool| -> Vec<&Figure<'_>> {
        all.iter().filter(|f| f.by == "coterie" && f.op == op && (f.rows <= 16) == few).collect()
    };
    memory_bound(&mut page, "Decode: attention", &all, &ours("attention", true), "torch");
    memory_bound(&mut page, "Decode: experts of a layer", &all, &ours("experts", true), "triton");
    compute_bound(&mut page, &all);
    let rows: Vec<&Figure<'_>> = ["norm", "rotary", "activation", "gate", "best token", "drawn token"]
        .iter()
        .flat_map(|op| all.iter().filter(move |f| f.by == "coterie" && f.op == *op))
        .collect();
    memory_bound(&mut page, "What is done to rows", &all, &rows, "torch");
    models(&mut page, report);
    page
}

/// What nobody should take for measured.
fn unmeasured(page: &mut String, report: &Value, all: &[Figure<'_>]) {
    let missing: Vec<&Value> = parts(report).filter(|part| text(part, "state") != "passed").collect();
    if missing.is_empty() {
        return;
    }
    *page += "\n## NOT CHECKED OR NOT MEASURED\n";
    if !all.iter().any(|figure| figure.by == "coterie") {
        *page += "**No kernel was timed: this run says nothing about speed.**\n";
    }
    for part in missing {
        let why = text(part, "why");
        let _ = writeln!(page, "- {}: {}{}", text(part, "name"), text(part, "state"), colon(why));
        let log = part["log"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for line in log.filter(|line| *line != why) {
            let _ = writeln!(page, "  > {}", line.replace('|', "\\|"));
        }
    }
}

fn colon(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(", {why}") }
}

fn ran(page: &mut String, report: &Value) {
    *page += "\n## Parts\n| part | state | seconds |\n|---|---|---|\n";
    for part in parts(report) {
        let _ = writeln!(page, "| {} | {} | {} |", text(part, "name"), text(part, "state"), part["seconds"]);
    }
}

fn bounds(page: &mut String, all: &[Figure<'_>]) {
    let bounds = |op: &str| all.iter().filter(move |figure| figure.op == op).collect::<Vec<_>>();
    let (copies, launches, dense) = (bounds("copy"), bounds("launch"), bounds("dense"));
    if copies.is_empty() && launches.is_empty() && dense.is_empty() {
        return;
    }
    *page += "\n## Bounds\n| by | what | time | rate | noise |\n|---|---|---|---|---|\n";
    for figure in copies.into_iter().chain(launches).chain(dense) {
        let rate = match (figure.bytes, figure.flop) {
            (_, flop) if flop > 0.0 => tera(figure.rate(), "FLOP/s"),
            (bytes, _) if bytes > 0.0 => tera(figure.bandwidth(), "B/s"),
            _ => String::new(),
        };
        let what = [figure.op, figure.of, figure.format].join(" ").trim().to_owned();
        let rows = if figure.rows > 0 { format!(", {} rows", figure.rows) } else { String::new() };
        let _ = writeln!(
            page,
            "| {} | {what}{rows} | {} | {rate} | {} |",
            figure.by,
            time(figure.seconds),
            percent(figure.noise)
        );
    }
}

/// A table of what reads and writes more than it computes.
fn memory_bound(page: &mut String, title: &str, all: &[Figure<'_>], rows: &[&Figure<'_>], other: &str) {
    if rows.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "\n## {title}\n| what | of | format | rows | time | rate | of copies | noise | error | {other} | |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
    );
    for figure in rows {
        let share = copied(all).map_or_else(String::new, |copied| percent(figure.bandwidth() / copied));
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {share} | {} | {} | {} | {} |",
            figure.op,
            figure.of,
            figure.format,
            figure.rows,
            time(figure.seconds),
            tera(figure.bandwidth(), "B/s"),
            percent(figure.noise),
            figure.error.map_or_else(String::new, |error| format!("{error:.0e}")),
            by(all, other, figure).map_or_else(String::new, |other| time(other.seconds)),
            figure.note,
        );
    }
}

/// Experts of many tokens.
fn compute_bound(page: &mut String, all: &[Figure<'_>]) {
    let ops = ["experts", "gate and up", "down"];
    let rows: Vec<&Figure<'_>> =
        all.iter().filter(|f| f.by == "coterie" && ops.contains(&f.op) && f.rows > 16).collect();
    if rows.is_empty() {
        return;
    }
    *page += "\n## Prefill: experts of a layer\ncuBLAS's rate is that of one dense product of each size, bf16 where it has none of the format.\n\n\
              | what | of | format | tokens | time | rate | of cuBLAS | Triton | ahead of it | noise | error | |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n";
    for figure in rows {
        let dense = |format: &str| {
            all.iter().find(|d| {
                d.by == "cublas"
                    && d.op == "dense"
                    && (d.of, d.format, d.rows) == (figure.of, format, figure.rows)
            })
        };
        let dense = dense(figure.format).or_else(|| dense("bf16"));
        let triton = by(all, "triton", figure);
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            figure.op,
            figure.of,
            figure.format,
            figure.rows,
            time(figure.seconds),
            tera(figure.rate(), "FLOP/s"),
            dense.map_or_else(String::new, |dense| percent(figure.rate() / dense.rate())),
            triton.map_or_else(String::new, |triton| time(triton.seconds)),
            triton.map_or_else(String::new, |triton| format!("{:.2} ×", triton.seconds / figure.seconds)),
            percent(figure.noise),
            figure.error.map_or_else(String::new, |error| format!("{error:.0e}")),
            figure.note,
        );
    }
}

/// What whole models said, as they said it.
fn models(page: &mut String, report: &Value) {
    let all = report["figures"].as_array().into_iter().flatten();
    let told: Vec<&Value> = all.filter(|figure| text(figure, "part").starts_with("model")).collect();
    if told.is_empty() {
        return;
    }
    *page += "\n## Whole models\n```\n";
    for figure in told {
        let _ = writeln!(page, "{figure}");
    }
    *page += "```\n";
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

fn tera(rate: f64, unit: &str) -> String {
    if rate < 1e12 { format!("{:.0} G{unit}", rate / 1e9) } else { format!("{:.2} T{unit}", rate / 1e12) }
}
