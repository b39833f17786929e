//! Child processes that never outlive the test binary, however it ends.

use anyhow::{Context, Result};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

/// Starts `program` with further environment variables and its output in `log`; it is killed when this process ends, by whatever cause.
///
/// The kernel ties that signal to the *thread* that made the child, and a test's thread ends with the test; so a
/// thread that never ends starts it.
pub fn spawn(program: &Path, args: &[String], variables: &[(&str, &Path)], log: &Path) -> Result<Child> {
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(program);
    command
        .args(args)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    // SAFETY: the closure runs in the forked child and makes one system call, which is allowed there.
    unsafe { command.pre_exec(die_with_parent) };
    let (send, receive) = mpsc::channel();
    std::thread::Builder::new().name("parent of processes".to_owned()).spawn(move || {
        let _ = send.send(command.spawn());
        loop {
            std::thread::park();
        }
    })?;
    receive.recv()?.with_context(|| format!("cannot start {}", program.display()))
}

fn die_with_parent() -> std::io::Result<()> {
    // SAFETY: prctl with PR_SET_PDEATHSIG touches no memory of ours.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
