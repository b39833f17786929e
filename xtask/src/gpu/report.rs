//! From what the parts of a run left to `gpu.json`, and from that to `gpu.md`.

mod goals;
mod markdown;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

/// Lines of a part's log that the report keeps where it did not pass.
const TAIL: usize = 8;
/// Characters of such a line.
const LONGEST: usize = 300;

/// Reads the files that `run` left in `work`, writes `gpu.json` and `gpu.md` to `out`, and fails if not every part passed.
pub fn write(work: &Path, out: &Path) -> Result<()> {
    let report = collect(work)?;
    let json = serde_json::to_string_pretty(&report)?;
    for (name, text) in [("gpu.json", json + "\n"), ("gpu.md", markdown::of(&report))] {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let unfinished: Vec<&str> = parts(&report)
        .filter(|part| text(part, "state") != "passed")
        .map(|part| text(part, "name"))
        .collect();
    if !unfinished.is_empty() {
        bail!("NOT EVERYTHING RAN ON A GPU OR PASSED: {}; gpu.md says why", unfinished.join(", "));
    }
    Ok(())
}

/// One object of all that was left.
fn collect(work: &Path) -> Result<Value> {
    let read = |name: &str| {
        let path = work.join(name);
        // A kernel's log may hold anything.
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok::<String, anyhow::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let mut machine = Map::new();
    for line in read("machine")?.lines() {
        if let Some((name, value)) = line.split_once('\t') {
            machine.insert(name.to_owned(), value.trim().into());
        }
    }
    let (mut parts, mut figures) = (Vec::new(), Vec::new());
    for line in read("parts")?.lines() {
        let [name, state, seconds, why] = line.splitn(4, '\t').collect::<Vec<_>>()[..] else {
            bail!("the line {line:?} of {} is none that `run` writes", work.join("parts").display());
        };
        let log = read(&format!("{name}.log")).unwrap_or_default();
        let lines = log.lines().filter(|line| !line.trim().is_empty());
        let (said, told): (Vec<&str>, Vec<&str>) = lines.partition(|line| figure(line).is_none());
        for mut figure in told.into_iter().filter_map(figure) {
            figure["part"] = name.into();
            figures.push(figure);
        }
        let words = if state == "passed" { Vec::new() } else { last_words(&said) };
        parts.push(json!({
            "name": name,
            "state": state,
            "seconds": seconds.parse::<u64>().unwrap_or(0),
            "why": why,
            "log": words,
        }));
    }
    Ok(json!({"machine": machine, "parts": parts, "figures": figures}))
}

/// Where a program panicked, as what a test binary says behind that is always the same; else the end of what it said.
fn last_words(said: &[&str]) -> Vec<String> {
    let panicked = said.iter().position(|line| line.contains("panicked at"));
    let from = panicked.unwrap_or(said.len().saturating_sub(TAIL));
    said[from..].iter().take(TAIL).map(|line| line.chars().take(LONGEST).collect()).collect()
}

/// The figure on a line, if a part told one: a kernel's, or a whole model's. Lines of a log may be JSON, too.
fn figure(line: &str) -> Option<Value> {
    let line = line.trim();
    let value: Value = line.starts_with('{').then(|| serde_json::from_str(line).ok())??;
    (value["by"].is_string() || value["decode"].is_array()).then_some(value)
}

fn parts(report: &Value) -> impl Iterator<Item = &Value> {
    report["parts"].as_array().into_iter().flatten()
}

/// A field, or nothing.
fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

/// What one of the programs measured.
#[derive(Clone, Debug, PartialEq)]
struct Figure<'a> {
    by: &'a str,
    op: &'a str,
    of: &'a str,
    format: &'a str,
    rows: u64,
    seconds: f64,
    noise: f64,
    bytes: f64,
    flop: f64,
    error: Option<f64>,
    note: &'a str,
}

impl Figure<'_> {
    /// Bytes a second.
    fn bandwidth(&self) -> f64 {
        self.bytes / self.seconds
    }

    /// Operations a second.
    fn rate(&self) -> f64 {
        self.flop / self.seconds
    }
}

/// Every figure of kernels; what a whole model does is told in other words.
fn figures(report: &Value) -> Vec<Figure<'_>> {
    let all = report["figures"].as_array().into_iter().flatten();
    all.filter_map(|figure| {
        let number = |name: &str| figure[name].as_f64();
        Some(Figure {
            by: text(figure, "by"),
            op: text(figure, "op"),
            of: text(figure, "of"),
            format: text(figure, "format"),
            rows: figure["rows"].as_u64()?,
            seconds: number("seconds").filter(|seconds| *seconds > 0.0)?,
            noise: number("noise").unwrap_or(0.0),
            bytes: number("bytes").unwrap_or(0.0),
            flop: number("flop").unwrap_or(0.0),
            error: number("error"),
            note: text(figure, "note"),
        })
    })
    .collect()
}

/// Bytes a second that a copy read and wrote in this run; the faster program's.
fn copied(figures: &[Figure<'_>]) -> Option<f64> {
    let copies = figures.iter().filter(|figure| figure.op == "copy");
    copies.map(Figure::bandwidth).max_by(f64::total_cmp)
}

/// The same as `figure` by another program.
fn by<'a, 'b>(figures: &'b [Figure<'a>], other: &str, figure: &Figure<'_>) -> Option<&'b Figure<'a>> {
    let key = |f: &Figure<'_>| (f.op.to_owned(), f.of.to_owned(), f.format.to_owned(), f.rows);
    figures.iter().find(|f| f.by == other && key(f) == key(figure))
}

#[cfg(test)]
mod tests;
