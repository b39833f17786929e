//! The comparison for people.

use super::compare::Row;
use super::fleet::Setting;
use super::outcome::Slo;
use super::trace::Trace;
use crate::columns::columns;
use std::fmt::Write;

/// A line about the trace and one about replicas, then a row for each policy.
pub fn table(trace: &Trace, setting: &Setting, slo: Slo, rows: &[Row]) -> String {
    let (count, seconds) = (trace.arrivals.len(), trace.seconds());
    let sum =
        |of: fn(&super::trace::Arrival) -> u64| trace.arrivals.iter().map(of).sum::<u64>() / count as u64;
    let mut text = format!(
        "{}: {count} requests in {seconds:.0} s, prompts of {} and answers of {} tokens in the mean\n",
        trace.name,
        sum(|arrival| arrival.prompt_tokens),
        sum(|arrival| arrival.output_tokens)
    );
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "replicas: cold start {} s, prefill {:.0} tokens/s, ITL(n) = {} + {} n ms, {} slots\nSLO: first token in {} s, then \
         one each {} ms\n",
        setting.cold_start,
        1.0 / setting.speed.prompt,
        rounded(setting.speed.step * 1000.0),
        rounded(setting.speed.token * 1000.0),
        setting.speed.slots,
        slo.ttft,
        rounded(slo.itl * 1000.0)
    );
    let heads = [
        "POLICY",
        "TARGET",
        "SLO",
        "TTFT",
        "ITL",
        "TTFT P99",
        "REPLICA HOURS",
        "PEAK",
        "OVERSHOOT",
        "DECISIONS",
    ];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(line));
    text += &columns(&lines);
    text
}

fn line(row: &Row) -> Vec<String> {
    let percent = |share: f64| format!("{:.2} %", (share * 10_000.0).floor() / 100.0);
    vec![
        row.policy.clone(),
        row.target.map_or(String::new(), |target| target.to_string()),
        percent(row.slo_attainment),
        percent(row.ttft_attainment),
        percent(row.itl_attainment),
        row.ttft_p99_seconds.map_or("never".to_owned(), |seconds| format!("{seconds:.2} s")),
        format!("{:.1}", row.replica_hours),
        row.peak_replicas.to_string(),
        format!("{:.2}", row.overshoot),
        row.decisions.to_string(),
    ]
}

/// Without the dust of binary fractions.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
