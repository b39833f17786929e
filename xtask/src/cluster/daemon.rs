//! Starts a long-running program of the cluster, detached from the command that starts it.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::namespace::{self, Bind};
use super::place::Place;
use super::process::{self, Process};
use crate::cmd;

/// In the environment of every daemon: the kept folder of its cluster. What a daemon starts inherits it, so that
/// whatever is left of a cluster can be found even when no pid file was written.
pub const MARK: &str = "COTERIE_CLUSTER";

const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The mounts a daemon sees.
pub enum Mounts {
    /// The host's.
    Host,
    /// Its own, with these folders bound over the host's.
    Own(Vec<Bind>),
    /// Those of another process of the same node.
    Of(File),
}

/// A daemon about to be started.
pub struct Daemon<'a> {
    /// Names its log and its pid file.
    pub name: &'a str,
    pub program: &'a Path,
    pub args: Vec<String>,
    /// The cluster's network namespace.
    pub network: &'a File,
    pub mounts: Mounts,
    /// A descriptor that stays open in the daemon, under the same number.
    pub inherit: Option<RawFd>,
}

impl Daemon<'_> {
    /// Starts it: its own session, a clean environment, output to its log, nothing else inherited.
    pub fn start(self, place: &Place) -> Result<Process> {
        let log = File::create(place.log(self.name)).with_context(|| format!("cannot log {}", self.name))?;
        let beside = self.program.parent().unwrap_or(Path::new("/")).display().to_string();
        let mut command = Command::new(self.program);
        command
            .args(&self.args)
            .env_clear()
            .env("PATH", format!("{beside}:{SYSTEM_PATH}"))
            .env("HOME", &place.run)
            .env(MARK, &place.keep)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let (network, inherit, mounts) = (self.network.as_raw_fd(), self.inherit, self.mounts);
        let enter = move || {
            // SAFETY: plain system calls, allowed between fork and exec.
            unsafe {
                libc::setsid();
                libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int);
                if let Some(fd) = inherit {
                    libc::fcntl(fd, libc::F_SETFD, 0);
                }
            }
            namespace::enter(network, libc::CLONE_NEWNET)?;
            match &mounts {
                Mounts::Host => Ok(()),
                Mounts::Own(binds) => namespace::own_mounts(binds),
                Mounts::Of(file) => namespace::enter(file.as_raw_fd(), libc::CLONE_NEWNS),
            }
        };
        // SAFETY: `enter` only makes system calls on values prepared here; it allocates nothing and takes no lock.
        let child = unsafe { command.pre_exec(enter) }.spawn();
        let child =
            child.with_context(|| format!("cannot start {} ({})", self.name, self.program.display()))?;
        let Some(process) = Process::of(child.id() as i32) else {
            bail!("{} ended at once:\n{}", self.name, cmd::tail_of(&place.log(self.name)));
        };
        process.record(&place.pid_file(self.name))?;
        Ok(process)
    }
}

/// The daemons that were started, by name, whether they still live or not.
pub fn recorded(place: &Place) -> Vec<(String, Option<Process>)> {
    let entries = fs::read_dir(place.run.join("pid")).into_iter().flatten().flatten();
    let mut daemons: Vec<_> = entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, Process::recorded(&entry.path()))))
        .filter(|(name, _)| !process::is_being_recorded(name))
        .collect();
    daemons.sort_by(|one, two| one.0.cmp(&two.0));
    daemons
}

/// Fails if a daemon that was started is no longer there, with the end of its log.
pub fn check_alive(place: &Place) -> Result<()> {
    for (name, process) in recorded(place) {
        if !process.is_some_and(|process| process.lives()) {
            let log = place.log(&name);
            bail!("{name} has ended; its log {} ends with:\n{}", log.display(), cmd::tail_of(&log));
        }
    }
    Ok(())
}
