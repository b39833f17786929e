//! Linux namespaces, entered with the calls themselves.
//!
//! The network namespace has no name and no mount: it lives as long as one process of the cluster does, and goes
//! with the last. A node's mount namespace is likewise held by its processes alone, so a node that is killed leaves
//! no mount behind.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::ptr;
use std::thread;

use anyhow::{Context, Result, bail};

/// Makes an empty network namespace.
pub fn new_network() -> Result<File> {
    let made = thread::spawn(|| {
        // SAFETY: unshare takes flags only; it moves just this thread, which ends right after.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        File::open("/proc/thread-self/ns/net")
    });
    match made.join() {
        Ok(made) => {
            made.context("cannot make a network namespace; the cluster needs root on the machine itself")
        }
        Err(_) => bail!("the thread that makes the network namespace panicked"),
    }
}

/// The network namespace of a running process.
pub fn network_of(pid: i32) -> Result<File> {
    let path = format!("/proc/{pid}/ns/net");
    File::open(&path).with_context(|| format!("cannot enter the cluster's network by {path}"))
}

/// The mount namespace of a running process.
pub fn mounts_of(pid: i32) -> Result<File> {
    let path = format!("/proc/{pid}/ns/mnt");
    File::open(&path).with_context(|| format!("cannot enter the node's mounts by {path}"))
}

/// Runs `work` on a thread inside the network namespace; commands it starts are inside as well.
pub fn inside<T: Send>(network: &File, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let fd = network.as_raw_fd();
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            enter(fd, libc::CLONE_NEWNET).context("cannot enter the cluster's network namespace")?;
            work()
        });
        worker.join().unwrap_or_else(|_| bail!("the thread in the cluster's network namespace panicked"))
    })
}

/// Moves the calling thread into a namespace. Safe between fork and exec: one system call.
pub fn enter(fd: RawFd, kind: i32) -> io::Result<()> {
    // SAFETY: setns takes a descriptor and a flag; a wrong one is an error.
    check(unsafe { libc::setns(fd, kind) })
}

/// A folder of the host that a node sees at another path.
pub struct Bind {
    source: CString,
    target: CString,
}

impl Bind {
    /// Both must exist when the bind is made.
    pub fn new(source: &Path, target: &str) -> Result<Bind> {
        let source = CString::new(source.as_os_str().as_encoded_bytes())?;
        Ok(Bind { source, target: CString::new(target)? })
    }
}

/// Gives the calling process mounts of its own, with `binds` on top. For use between fork and exec: system calls
/// only, nothing is allocated.
pub fn own_mounts(binds: &[Bind]) -> io::Result<()> {
    // SAFETY: unshare takes flags only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    // First private, so that nothing reaches the host; then shared, as the kubelet expects of its node's root.
    propagate(libc::MS_PRIVATE)?;
    propagate(libc::MS_SHARED)?;
    for bind in binds {
        let (source, target) = (bind.source.as_ptr(), bind.target.as_ptr());
        // SAFETY: both are C strings that outlive the call; type and options are unused for a bind.
        check(unsafe { libc::mount(source, target, ptr::null(), libc::MS_BIND, ptr::null()) })?;
    }
    Ok(())
}

fn propagate(how: libc::c_ulong) -> io::Result<()> {
    let (none, root) = (c"none".as_ptr(), c"/".as_ptr());
    // SAFETY: C string literals; type and options are unused when only the propagation changes.
    check(unsafe { libc::mount(none, root, ptr::null(), libc::MS_REC | how, ptr::null()) })
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
