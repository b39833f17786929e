//! What was asked for, beside what was measured.

use serde_json::Value;

use super::{Figure, by, copied, figures, parts, text};

/// Whether a goal was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// In every case.
    Yes,
    /// In every case that was measured, and not all were.
    Partly,
    /// Not in all.
    No,
    /// There is no figure.
    Unknown,
}

/// A goal and its figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    pub asked: &'static str,
    pub met: Met,
    /// The figures, or which are missing.
    pub measured: String,
}

/// All of them.
pub fn of(report: &Value) -> Vec<Goal> {
    let all = figures(report);
    let mut goals = vec![
        of_bandwidth(
            &all,
            "decode attention, 1 to 16 sequences: at least 85 % of the copy bandwidth of this run",
            "attention",
        ),
        of_bandwidth(
            &all,
            "experts of 1 to 16 tokens: at least 85 % of the copy bandwidth of this run",
            "experts",
        ),
        of_dense(&all),
        ahead_of_triton(&all),
        of_model(report),
        of_load(report),
    ];
    let unfinished = |part: &&Value| {
        MEASURE.iter().any(|name| text(part, "name").starts_with(name)) && text(part, "state") != "passed"
    };
    if let Some(part) = parts(report).find(unfinished) {
        for goal in goals.iter_mut().filter(|goal| goal.met == Met::Yes) {
            goal.met = Met::Partly;
            goal.measured += &format!("; {} did not measure all", text(part, "name"));
        }
    }
    goals
}

/// What the names of parts begin with that measure.
const MEASURE: [&str; 3] = ["speed", "peers", "model"];

/// The least of some shares, and where it is.
fn least(shares: Vec<(f64, String)>, goal: f64, asked: &'static str, without: &str) -> Goal {
    let Some((share, place)) = shares.iter().min_by(|a, b| a.0.total_cmp(&b.0)) else {
        return Goal { asked, met: Met::Unknown, measured: without.to_owned() };
    };
    let reached = shares.iter().filter(|(share, _)| *share >= goal).count();
    let met = if reached == shares.len() { Met::Yes } else { Met::No };
    let measured =
        format!("{reached} of {} cases; the least is {:.0} % ({place})", shares.len(), 100.0 * share);
    Goal { asked, met, measured }
}

fn name(figure: &Figure<'_>) -> String {
    format!("{}, {}, {} rows", figure.of, figure.format, figure.rows)
}

fn of_bandwidth(all: &[Figure<'_>], asked: &'static str, op: &str) -> Goal {
    let ours = all.iter().filter(|f| f.by == "coterie" && f.op == op && (1..=16).contains(&f.rows));
    let shares = copied(all).map(|copied| ours.map(|f| (f.bandwidth() / copied, name(f))).collect());
    least(shares.unwrap_or_default(), 0.85, asked, "no figure, or no copy to compare it with")
}

/// The formats that the goals for prefills are about.
const FORMATS: [&str; 2] = ["bf16", "fp8"];

fn prefills<'a, 'b>(all: &'b [Figure<'a>]) -> impl Iterator<Item = &'b Figure<'a>> {
    all.iter()
        .filter(|f| f.by == "coterie" && f.op == "experts" && f.rows > 16 && FORMATS.contains(&f.format))
}

fn of_dense(all: &[Figure<'_>]) -> Goal {
    let shares = prefills(all).filter_map(|f| {
        let dense = all.iter().find(|d| {
            d.by == "cublas" && d.op == "dense" && (d.of, d.format, d.rows) == (f.of, f.format, f.rows)
        })?;
        Some((f.rate() / dense.rate(), name(f)))
    });
    let asked = "experts of 4096 tokens, bf16 and fp8: at least 75 % of cuBLAS's rate at dense products of the same sizes";
    least(shares.collect(), 0.75, asked, "no figure, or none of cuBLAS")
}

fn ahead_of_triton(all: &[Figure<'_>]) -> Goal {
    let shares = prefills(all).filter_map(|f| Some((by(all, "triton", f)?.seconds / f.seconds, name(f))));
    let asked = "experts of 4096 tokens, bf16 and fp8: ahead of the Triton kernel";
    least(shares.collect(), 1.0, asked, "no figure, or none of Triton")
}

/// What `coterie bench gpu` printed, a report an object.
fn models(report: &Value) -> impl Iterator<Item = &Value> {
    let all = report["figures"].as_array().into_iter().flatten();
    all.filter(|figure| text(figure, "part").starts_with("model"))
}

fn of_model(report: &Value) -> Goal {
    let shares = models(report).flat_map(|model| {
        let decodes = model["decode"].as_array().into_iter().flatten();
        decodes.filter_map(|decode| {
            let name = format!("{}, batch {}", text(model, "quantization"), decode["batch"]);
            Some((decode["share_of_roofline"].as_f64()?, name))
        })
    });
    let asked = "decode of Qwen3-30B-A3B, batch 1, 16 and 64, bf16 and int4: at least 80 % of the roofline";
    least(shares.collect(), 0.8, asked, "no figure")
}

fn of_load(report: &Value) -> Goal {
    let shares = models(report).filter_map(|model| {
        Some((model["load"]["share_of_bound"].as_f64()?, text(model, "quantization").to_owned()))
    });
    let asked = "load to Ready, int4: at least 80 % of the slower of file and PCIe";
    least(shares.collect(), 0.8, asked, "no figure")
}
