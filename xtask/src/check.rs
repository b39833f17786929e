//! `cargo xtask check`: what must hold before a commit. Every rule is a function that returns findings, and every
//! finding says how to fix it.

mod cargo;
mod chart;
mod crates;
mod generated;
mod lexer;
mod licence;
mod size;
mod source;
mod text;
mod words;

use crate::cache;
use anyhow::{Context, Result, bail};
use std::{fmt, fs, path::Path, time::Instant};

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    place: String,
    problem: String,
    fix: String,
}

impl Finding {
    fn new(place: impl Into<String>, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Finding { place: place.into(), problem: problem.into(), fix: fix.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.problem, self.fix)
    }
}

/// A rule needs something that is not on this machine: it says what, and how to get it.
#[derive(Debug)]
struct Skipped(&'static str);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Skipped {}

/// Checks every rule, prints what breaks one, and fails if anything does.
pub fn run() -> Result<()> {
    let root = cache::checkout();
    let root = root.as_path();
    let files = source::read(root)?;
    let mut report = Report::default();
    report.rule("banned words", || Ok(words::check(&files)));
    report.rule("file sizes", || Ok([size::lines(&files), size::bytes(&files)].concat()));
    report.rule("unfinished work", || Ok(text::unfinished(&files)));
    report.rule("machine paths", || Ok(text::machine_paths(&files, root)));
    report.rule("links", || Ok(text::links(&files)));
    report.rule("purity", || Ok(crates::purity(&files)));
    report.rule("crate graph", || Ok(crates::graph(&cargo::metadata(root)?)));
    report
        .rule("licences, sources, duplicates", || Ok(licence::check(&cargo::metadata(root)?, &lists(root)?)));
    report.rule("format", || cargo::format(root));
    report.rule("chart", || chart::check(root));
    report.rule("cargo-deny", || cargo::deny(root));
    report.rule("advisories", || cargo::advisories(root));
    report.rule("clippy", || cargo::lint(root));
    report.rule("generated files", || generated::check(root));
    report.end()
}

/// Writes every generated file anew.
pub fn generate() -> Result<()> {
    generated::write(&cache::checkout())
}

fn lists(root: &Path) -> Result<licence::Lists> {
    let deny = fs::read_to_string(root.join("deny.toml")).context("cannot read deny.toml")?;
    Ok(licence::Lists::parse(&deny))
}

#[derive(Default)]
struct Report {
    passed: usize,
    failed: Vec<&'static str>,
    skipped: Vec<&'static str>,
}

impl Report {
    /// Runs one rule and prints its line. A rule that cannot be checked is broken, unless it says that it is skipped.
    fn rule(&mut self, name: &'static str, check: impl FnOnce() -> Result<Vec<Finding>>) {
        let start = Instant::now();
        let (verdict, lines) = match check() {
            Ok(findings) if findings.is_empty() => ("ok", Vec::new()),
            Ok(findings) => ("FAIL", findings.iter().map(Finding::to_string).collect()),
            Err(error) if error.is::<Skipped>() => ("SKIPPED", vec![error.to_string()]),
            Err(error) => ("FAIL", vec![format!("{error:#}")]),
        };
        match verdict {
            "ok" => self.passed += 1,
            "FAIL" => self.failed.push(name),
            _ => self.skipped.push(name),
        }
        println!("{verdict:<7} {name} ({:.1} s)", start.elapsed().as_secs_f32());
        for line in lines {
            println!("        {line}");
        }
    }

    fn end(self) -> Result<()> {
        let names = |names: &[&str]| {
            if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
        };
        println!(
            "{} rules passed, {} failed{}, {} skipped{}",
            self.passed,
            self.failed.len(),
            names(&self.failed),
            self.skipped.len(),
            names(&self.skipped)
        );
        if !self.failed.is_empty() {
            bail!("check failed: {}", self.failed.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_fails_with_the_names_of_broken_rules() {
        let mut report = Report::default();
        report.rule("good", || Ok(Vec::new()));
        assert!(Report { passed: 1, ..Report::default() }.end().is_ok());
        report.rule("bad", || Ok(vec![Finding::new("a", "b", "c")]));
        report.rule("broken", || bail!("no such file"));
        report.rule("elsewhere", || bail!(Skipped("no such program")));
        assert_eq!((report.passed, &report.skipped[..]), (1, &["elsewhere"][..]));
        assert_eq!(report.end().unwrap_err().to_string(), "check failed: bad, broken");
    }

    #[test]
    fn a_finding_says_where_what_and_how_to_fix_it() {
        assert_eq!(
            Finding::new("a.rs:1", "it is long", "split it").to_string(),
            "a.rs:1: it is long; split it"
        );
    }
}
