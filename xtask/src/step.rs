//! Progress for people: one line per step, with what it does and how long it took.

use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;

/// A step under way. Its line is completed by [`Step::done`] or [`Step::cached`]; dropped without either,
/// for example by `?`, it says that it failed.
#[must_use]
pub struct Step {
    started: Instant,
    finished: bool,
}

impl Step {
    /// Prints what is about to be done, without ending the line. Everything goes to stderr: stdout is for results.
    pub fn start(what: impl Display) -> Step {
        eprint!("  {what:<62} ");
        let _ = std::io::stderr().flush();
        Step { started: Instant::now(), finished: false }
    }

    /// Ends the line with the elapsed time.
    pub fn done(self) {
        let elapsed = seconds(self.started.elapsed());
        self.end(&elapsed);
    }

    /// Ends the line with "cached": there was nothing to do.
    pub fn cached(self) {
        self.end("cached");
    }

    /// Ends the line with a remark and the elapsed time.
    pub fn note(self, remark: impl Display) {
        let line = format!("{}  ({remark})", seconds(self.started.elapsed()));
        self.end(&line);
    }

    fn end(mut self, how: &str) {
        eprintln!("{how}");
        self.finished = true;
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished {
            eprintln!("failed after {}", seconds(self.started.elapsed()));
        }
    }
}

/// Runs `work` as one step: its line says how long it took, or that it failed.
pub fn step<T>(what: impl Display, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let step = Step::start(what);
    let result = work()?;
    step.done();
    Ok(result)
}

/// A duration as people read it: `0.4 s`, `3 min 07 s`.
pub fn seconds(elapsed: Duration) -> String {
    let whole = elapsed.as_secs();
    if whole < 100 {
        format!("{:.1} s", elapsed.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(420)), "0.4 s");
        assert_eq!(seconds(Duration::from_secs(187)), "3 min 07 s");
    }
}
