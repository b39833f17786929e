//! The renderer: a process that compiles one template, renders with it, and may die of it.
//!
//! `coterie` starts itself so (a subcommand that help does not show). The kernel ends it when it computes for too long
//! or takes too much memory, whatever the interpreter does meanwhile. It has nothing that a template could reach: no
//! files are open but the socket, on its standard input.

use super::interpreter::{Interpreter, Variables};
use super::wire::{Answer, read_question};
use crate::machine::peak_memory;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Processor time that compiling, or rendering one conversation, may take.
pub(super) const SECONDS: i64 = 2;
/// Address space of the process, bytes: 256 MiB of it are the deepest stack.
pub(super) const MEMORY: u64 = 768 << 20;
/// One that has taken more is not used again, bytes: an allocator keeps what it once had.
const LARGE: u64 = 128 << 20;

/// Serves whoever started this process, until that is gone.
pub fn run() -> io::Result<()> {
    close_all_but_the_socket()?;
    limit(libc::RLIMIT_AS, MEMORY)?;
    limit(libc::RLIMIT_CORE, 0)?;
    // SAFETY: whoever starts this process gives it the socket as its standard input; nothing else in it uses that.
    let mut asker = UnixStream::from(unsafe { OwnedFd::from_raw_fd(libc::STDIN_FILENO) });
    let Some(template) = read_question(&mut asker)? else { return Ok(()) };
    let compiled = within_time(|| Interpreter::new(&String::from_utf8_lossy(&template)))?;
    let (interpreter, rendered) = match compiled {
        Ok(interpreter) => (Some(interpreter), Ok(String::new())),
        Err(why) => (None, Err(why)),
    };
    Answer { rendered, last: interpreter.is_none() }.write(&mut asker)?;
    let Some(interpreter) = interpreter else { return Ok(()) };
    while let Some(question) = read_question(&mut asker)? {
        let rendered = within_time(|| {
            let variables: Variables =
                serde_json::from_slice(&question).map_err(|error| error.to_string())?;
            interpreter.render(&variables)
        })?;
        let last = peak_memory().is_none_or(|peak| peak > LARGE);
        Answer { rendered, last }.write(&mut asker)?;
        if last {
            break;
        }
    }
    Ok(())
}

/// Descriptors that whoever started `coterie` left open are none of a template's business, nor are more rights.
fn close_all_but_the_socket() -> io::Result<()> {
    let first = libc::STDERR_FILENO as libc::c_uint + 1;
    // SAFETY: nothing in this process has opened anything yet that it would use again.
    succeeded(unsafe { libc::close_range(first, libc::c_uint::MAX, 0) })?;
    // SAFETY: it sets one flag of this process, and takes no pointer.
    succeeded(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

/// Does `work`, or ends the process: SIGPROF comes when its time is used up.
fn within_time<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    arm(SECONDS)?;
    let done = work();
    arm(0)?;
    Ok(done)
}

fn arm(seconds: i64) -> io::Result<()> {
    let none = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let timer =
        libc::itimerval { it_interval: none, it_value: libc::timeval { tv_sec: seconds, tv_usec: 0 } };
    // SAFETY: the timer is read only, and the old one is not asked for.
    succeeded(unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) })
}

fn limit(resource: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the limit is read only.
    succeeded(unsafe { libc::setrlimit(resource, &raw const limit) })
}

fn succeeded(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
