//! Requests with their times: read from CSV, or written as such.

use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// The first line of a trace.
pub const HEADER: &str = "arrival_s,prompt_tokens,output_tokens";
/// Most requests of a trace.
const REQUESTS_LIMIT: usize = 2_000_000;
/// Largest file.
const BYTES_LIMIT: u64 = 256 << 20;
/// Latest arrival: 31 days.
const SECONDS_LIMIT: f64 = 31.0 * 86_400.0;
/// Most tokens of a prompt, and of an answer.
const TOKENS_LIMIT: u64 = 10_000_000;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Seconds since the trace began.
    pub at: f64,
    /// At least 1.
    pub prompt_tokens: u64,
    /// At least 1.
    pub output_tokens: u64,
}

/// Requests in the order of their arrival; at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// What errors and plots call it.
    pub name: String,
    /// In order.
    pub arrivals: Vec<Arrival>,
}

impl Trace {
    /// Of requests, whose order does not matter.
    pub fn new(name: String, mut arrivals: Vec<Arrival>) -> Result<Self> {
        ensure!(!arrivals.is_empty(), "{name} has no request: give a longer or busier trace");
        arrivals.sort_by(|a, b| a.at.total_cmp(&b.at));
        Ok(Self { name, arrivals })
    }

    /// Reads a CSV file.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let size = fs::metadata(path).with_context(|| format!("cannot read {name}"))?.len();
        ensure!(
            size <= BYTES_LIMIT,
            "{name} has {size} bytes, more than {BYTES_LIMIT}: take a part of the trace"
        );
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        Self::parse(name, &text)
    }

    /// Reads CSV.
    pub fn parse(name: String, text: &str) -> Result<Self> {
        let mut lines = text.lines().map(str::trim).zip(1_usize..).filter(|(line, _)| !line.is_empty());
        let header = lines.next().map_or("", |(line, _)| line.trim_start_matches('\u{feff}'));
        ensure!(header == HEADER, "{name} does not begin with the line {HEADER}: it begins with {header:?}");
        let mut arrivals: Vec<Arrival> = Vec::new();
        for (line, number) in lines {
            let place = || format!("{name}, line {number}");
            ensure!(
                arrivals.len() < REQUESTS_LIMIT,
                "{name} has more than {REQUESTS_LIMIT} requests: take a part of the trace"
            );
            let arrival = arrival(line).with_context(place)?;
            if let Some(before) = arrivals.last().filter(|before| before.at > arrival.at) {
                bail!(
                    "{}: it arrives at {} s, before the one above it ({} s): sort the trace by arrival_s",
                    place(),
                    arrival.at,
                    before.at
                );
            }
            arrivals.push(arrival);
        }
        ensure!(!arrivals.is_empty(), "{name} has no request below its first line");
        Ok(Self { name, arrivals })
    }

    /// As CSV that reads back as the very same trace.
    pub fn csv(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for Arrival { at, prompt_tokens, output_tokens } in &self.arrivals {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{at},{prompt_tokens},{output_tokens}");
        }
        text
    }

    /// When the last request arrives.
    pub fn seconds(&self) -> f64 {
        self.arrivals.last().map_or(0.0, |last| last.at)
    }
}

fn arrival(line: &str) -> Result<Arrival> {
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    let [at, prompt, output] = cells[..] else {
        bail!(
            "{line:?} has {} cells: write three numbers, its arrival_s, prompt_tokens and output_tokens, as in 0.25,1000,100",
            cells.len()
        );
    };
    let seconds: f64 = at.parse().with_context(|| format!("arrival_s {at:?} is no number"))?;
    ensure!(
        (0.0..=SECONDS_LIMIT).contains(&seconds),
        "arrival_s is {at}: write seconds since the trace began, 0 to {SECONDS_LIMIT}"
    );
    Ok(Arrival {
        at: seconds,
        prompt_tokens: tokens("prompt_tokens", prompt)?,
        output_tokens: tokens("output_tokens", output)?,
    })
}

fn tokens(column: &str, cell: &str) -> Result<u64> {
    match cell.parse() {
        Ok(count) if (1..=TOKENS_LIMIT).contains(&count) => Ok(count),
        _ => bail!("{column} is {cell:?}: write a whole number from 1 to {TOKENS_LIMIT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, words: &str) {
        let error = Trace::parse("t.csv".into(), text).unwrap_err();
        let told = format!("{error:#}");
        assert!(told.starts_with("t.csv") && told.contains(words), "{words:?} is not in {told:?}");
    }

    #[test]
    fn what_is_written_reads_back() {
        let arrivals = vec![
            Arrival { at: 0.0, prompt_tokens: 3, output_tokens: 1 },
            Arrival { at: 1.25, prompt_tokens: 1000, output_tokens: 7 },
            Arrival { at: 4.0 / 3.0, prompt_tokens: 5, output_tokens: 8 },
        ];
        let trace = Trace::new("t.csv".into(), arrivals).unwrap();
        assert_eq!(Trace::parse("t.csv".into(), &trace.csv()).unwrap(), trace);
        assert_eq!(trace.seconds(), 4.0 / 3.0);
        let windows = trace.csv().replace('\n', "\r\n");
        assert_eq!(Trace::parse("t.csv".into(), &format!("\u{feff}{windows}\r\n")).unwrap(), trace);
    }

    #[test]
    fn a_bad_trace_is_told_with_its_line() {
        let with = |line: &str| format!("{HEADER}\n1,2,3\n{line}\n");
        refused("", "does not begin with the line arrival_s,prompt_tokens,output_tokens");
        refused("0.0,1,2\n", "it begins with \"0.0,1,2\"");
        refused(HEADER, "no request");
        refused(&with("1,2"), "line 3: \"1,2\" has 2 cells: write three numbers, its arrival_s, ");
        refused(&with("1,2,3,4"), "has 4 cells");
        refused(&with("x,2,3"), "line 3: arrival_s \"x\" is no number");
        for wrong in ["-1", "NaN", "inf", "1e300"] {
            refused(&with(&format!("{wrong},2,3")), "write seconds since the trace began");
        }
        refused(&with("0.5,2,3"), "line 3: it arrives at 0.5 s, before the one above it (1 s): sort");
        for wrong in ["0", "-5", "1.5", "", "99999999999"] {
            refused(&with(&format!("2,{wrong},3")), "line 3: prompt_tokens is");
            refused(&with(&format!("2,3,{wrong}")), "line 3: output_tokens is");
        }
    }
}
