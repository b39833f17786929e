//! Holds a pod's namespaces open and, where containers share its process namespace, reaps their orphans.
//! Compiled as a static binary by `cargo xtask`; nothing else belongs in a sandbox.

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const SIG_IGN: usize = 1;

unsafe extern "C" {
    fn signal(number: i32, action: usize) -> usize;
    fn pause() -> i32;
    fn _exit(code: i32) -> !;
}

extern "C" fn leave(_signal: i32) {
    // SAFETY: _exit may be called from a signal handler.
    unsafe { _exit(0) }
}

fn main() {
    let leave = leave as extern "C" fn(i32) as usize;
    // SAFETY: the handlers do nothing but exit, or are the kernel's own "ignore", by which it reaps children itself.
    unsafe {
        signal(SIGCHLD, SIG_IGN);
        signal(SIGINT, leave);
        signal(SIGTERM, leave);
        loop {
            pause();
        }
    }
}
