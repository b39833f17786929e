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
        "{}: {count} requests in {} s, prompts of {} and answers of {} tokens in the mean\n",
        trace.name,
        rounded(seconds),
        sum(|arrival| arrival.prompt_tokens),
        sum(|arrival| arrival.output_tokens)
    );
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "replicas: cold start {} s, prefill {} tokens/s, ITL(n) = {} + {} n ms, {} slots\nSLO: first token in {} s, then \
         one each {} ms\n",
        setting.cold_start,
        rounded(1.0 / setting.speed.prompt),
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
    for Row { policy, unanswered, .. } in rows.iter().filter(|row| row.unanswered > 0) {
        let _ =
            writeln!(text, "{policy}: the replay was ended with {unanswered} of {count} requests unanswered");
    }
    if setting.least == 0 {
        text += "\nhpa and apa divide by the replicas that there are, and therefore do not come back from none.\n";
    }
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

/// To six digits, without the dust of binary fractions.
fn rounded(value: f64) -> f64 {
    if !(1e-99..1e99).contains(&value) {
        return value;
    }
    let power = 10_f64.powi(5 - value.log10().floor() as i32);
    (value * power).round() / power
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn a_number_however_small_is_printed() {
        for (value, expected) in [
            (1.0 / (1.0 / 8000.0), "8000"),
            (1e-9, "0.000000001"),
            (0.0, "0"),
            (0.1 + 0.2, "0.3"),
            (123_456.7, "123457"),
        ] {
            assert_eq!(rounded(value).to_string(), expected);
        }
    }
}
