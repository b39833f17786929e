//! Processes by identity: a pid alone may belong to somebody else by the time it is used.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// One certain process: its pid, when it started, and in which boot of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks from boot to the start of the process, field 22 of /proc/PID/stat.
    started: u64,
    boot: String,
}

impl Process {
    /// The process that has this pid now, if it lives (a zombie does not).
    pub fn of(pid: i32) -> Option<Process> {
        let (state, started) = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        (!matches!(state, 'Z' | 'X')).then(|| Process { pid, started, boot: boot_id() })
    }

    /// Whether this very process still lives.
    pub fn lives(&self) -> bool {
        Process::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal, unless the process is gone.
    pub fn signal(&self, signal: i32) {
        if self.lives() {
            // SAFETY: kill takes any pid and signal number.
            unsafe { libc::kill(self.pid, signal) };
        }
    }

    /// Writes the pid file, complete or not at all.
    pub fn record(&self, path: &Path) -> Result<()> {
        let unfinished = path.with_extension(UNFINISHED);
        fs::write(&unfinished, format!("{} {} {}\n", self.pid, self.started, self.boot))?;
        fs::rename(&unfinished, path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads a pid file; `None` if there is none or it is broken.
    pub fn recorded(path: &Path) -> Option<Process> {
        parse_record(&fs::read_to_string(path).ok()?)
    }
}

/// Extension of a pid file that is being written.
const UNFINISHED: &str = "unfinished";

/// Whether a file of this name is a pid file that is still being written, or was when its writer was killed.
pub fn is_being_recorded(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == UNFINISHED)
}

/// Every living process started with `NAME=value` in its environment, except this one.
///
/// Daemons get such a mark, and what they start inherits it; processes in pods do not.
pub fn marked(variable: &str, value: &str) -> Vec<Process> {
    let mark = format!("{variable}={value}");
    let own = std::process::id().to_string();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok().filter(|name| *name != own)?;
        name.parse().ok()
    });
    let has_mark = |pid: &i32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
            environment.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes())
        })
    };
    pids.filter(has_mark).filter_map(Process::of).collect()
}

/// Asks processes to end, and ends them after `patience`.
pub fn end(processes: &[Process], patience: Duration) -> Result<()> {
    for process in processes {
        process.signal(libc::SIGTERM);
    }
    if wait_for_end(processes, patience) {
        return Ok(());
    }
    for process in processes {
        process.signal(libc::SIGKILL);
    }
    if wait_for_end(processes, Duration::from_secs(10)) {
        return Ok(());
    }
    let left: Vec<_> =
        processes.iter().filter(|process| process.lives()).map(|process| process.pid).collect();
    bail!(
        "the processes {left:?} did not end even when killed; look at them with `ps -o pid,stat,wchan,args`"
    )
}

fn wait_for_end(processes: &[Process], patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if !processes.iter().any(Process::lives) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into()
}

/// State and start time. The name (field 2) may hold spaces and parentheses, so fields are counted from its end.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn parse_record(text: &str) -> Option<Process> {
    let mut words = text.split_whitespace();
    let process = Process {
        pid: words.next()?.parse().ok()?,
        started: words.next()?.parse().ok()?,
        boot: words.next()?.into(),
    };
    words.next().is_none().then_some(process)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) (b c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        assert_eq!(parse_stat(stat), Some(('S', 4242)));
        assert_eq!(parse_stat("7 (cut"), None);
    }

    #[test]
    fn a_pid_file_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etcd");
        let process = Process::of(std::process::id() as i32).unwrap();
        process.record(&path).unwrap();
        assert_eq!(Process::recorded(&path), Some(process));
        for broken in ["", "12", "12 x y", "12 3 boot more"] {
            assert_eq!(parse_record(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_ours() {
        let now = Process::of(std::process::id() as i32).unwrap();
        assert!(now.lives());
        assert!(!Process { started: now.started + 1, ..now.clone() }.lives());
        assert!(!Process { boot: "an earlier boot".into(), ..now }.lives());
    }

    #[test]
    fn processes_that_ignore_the_request_are_killed() {
        let mut child =
            Command::new("sh").args(["-c", "trap '' TERM; while :; do sleep 0.05; done"]).spawn().unwrap();
        thread::sleep(Duration::from_millis(100));
        let process = Process::of(child.id() as i32).unwrap();
        end(std::slice::from_ref(&process), Duration::from_millis(100)).unwrap();
        assert!(!process.lives());
        child.wait().unwrap();
    }

    #[test]
    fn the_mark_finds_children_of_children() {
        let mark = format!("mark-{}", std::process::id());
        let script = "sleep 30 & wait";
        let mut child = Command::new("sh").args(["-c", script]).env("XTASK_TEST", &mark).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while marked("XTASK_TEST", &mark).len() < 2 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let found = marked("XTASK_TEST", &mark);
        assert_eq!(found.len(), 2);
        assert!(marked("XTASK_TEST", "mark").is_empty(), "a mark that only begins alike is another's");
        end(&found, Duration::from_secs(1)).unwrap();
        child.wait().unwrap();
    }
}
