//! Counting what passed and failed, from what the test runners print.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::cmd;

/// What was counted so far, and the parts that failed as a whole.
#[derive(Debug, Default, PartialEq)]
pub struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
    failures: Vec<String>,
}

impl Tally {
    /// Counts a part that has no tests of its own to count: one passed, or one failed with its error printed.
    pub fn part(&mut self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(error) => {
                println!("{name} failed: {error:#}");
                self.failed += 1;
                self.failures.push(name.to_owned());
            }
        }
    }

    /// Counts a part that cannot be run on this machine, and says why.
    pub fn skip(&mut self, name: &str, why: &str) {
        println!("SKIPPED {name}: {why}");
        self.skipped += 1;
    }

    /// Runs `cargo test`, shows what it prints, and counts its tests. A run that fails without a failed test (it does
    /// not compile, or was killed) counts as one failure.
    pub fn cargo_test(&mut self, name: &str, cargo: &mut Command) -> Result<()> {
        let mut child = cargo
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", cmd::line(cargo)))?;
        let failed_before = self.failed;
        for line in BufReader::new(child.stdout.take().context("cargo has no output")?).lines() {
            let line = line?;
            println!("{line}");
            self.count(&line);
        }
        let status = child.wait()?;
        if self.failed > failed_before {
            self.failures.push(name.to_owned());
        } else if !status.success() {
            self.failed += 1;
            self.failures.push(format!("{name} (`{}`: {status})", cmd::line(cargo)));
        }
        Ok(())
    }

    /// Reads a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out`.
    fn count(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<usize>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    /// Whether anything failed.
    pub fn has_failed(&self) -> bool {
        self.failed > 0
    }

    /// The closing lines.
    pub fn print(&self) {
        for failure in &self.failures {
            println!("failed: {failure}");
        }
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn lines_of_the_runner_are_summed() {
        let mut tally = Tally::default();
        tally.count(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        );
        tally.count("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
        tally.count("test tests::result: ok");
        assert_eq!((tally.passed, tally.failed, tally.skipped), (5, 1, 1));
        assert!(tally.has_failed());
    }

    #[test]
    fn a_part_that_fails_is_named() {
        let mut tally = Tally::default();
        tally.part("check", Err(anyhow!("not formatted")));
        assert_eq!(tally.failures, ["check"]);
    }

    #[test]
    fn a_runner_that_fails_without_a_test_is_a_failure() {
        let mut tally = Tally::default();
        tally.cargo_test("crates", Command::new("sh").args(["-c", "exit 101"])).unwrap();
        assert_eq!((tally.passed, tally.failed), (0, 1));
    }
}
