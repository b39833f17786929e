//! Persistent worker threads that run one closure at a time.

use std::cell::{Cell, RefCell, RefMut, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::isa::Isa;
use super::scratch::Scratch;

/// How long a thread without work spins before it parks. Long enough to stay hot between the ops of one forward
/// pass, short enough that an idle process uses no CPU.
const SPIN: Duration = Duration::from_micros(60);

/// Worker threads, and the instruction set their ops use.
///
/// Owned and used by one thread, which takes part in the work as worker 0. Workers spin for some microseconds after
/// a run, then park. Dropping the pool ends them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    isa: Isa,
    /// Jobs published. A `Cell` also keeps the pool from being shared: `Shared` is only safe with one publisher.
    epoch: Cell<u64>,
    scratch: RefCell<Scratch>,
}

/// What one run executes: the caller's closure, its lifetime erased.
#[derive(Clone, Copy)]
struct Job {
    call: &'static (dyn Fn(usize, usize) + Sync),
}

struct Shared {
    /// Number of jobs published so far. Bumped after `job`, `pending` and `owner` are written.
    epoch: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    /// Who waits for the run; written with the job.
    owner: UnsafeCell<Option<Thread>>,
    /// Workers (the caller left out) that have not finished the current job.
    pending: AtomicUsize,
    owner_parked: AtomicBool,
    parked: Vec<AtomicBool>,
    stop: AtomicBool,
    panicked: AtomicBool,
}

// SAFETY: `job` and `owner` are written by the owner only while `pending` is 0, and read by workers only between
// seeing the new epoch and decrementing `pending`.
unsafe impl Sync for Shared {}

impl Pool {
    /// A pool of `threads` threads, the caller counted; 0 means one per available core (cgroup limits respected).
    pub fn new(threads: usize) -> Pool {
        Pool::with_isa(threads, Isa::best())
    }

    /// Like [`Pool::new`], with a chosen instruction set.
    ///
    /// # Panics
    /// If the CPU lacks that instruction set, or a thread cannot be started.
    pub fn with_isa(threads: usize, isa: Isa) -> Pool {
        assert!(isa <= Isa::best(), "this CPU lacks {isa:?}");
        let threads = match threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            owner: UnsafeCell::new(None),
            pending: AtomicUsize::new(0),
            owner_parked: AtomicBool::new(false),
            parked: (1..threads).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        let workers = (1..threads)
            .map(|worker| {
                let shared = shared.clone();
                thread::Builder::new()
                    .name(format!("kernel-{worker}"))
                    .spawn(move || work(&shared, worker, threads))
                    .unwrap_or_else(|error| panic_start(worker, &error))
            })
            .collect();
        Pool { shared, workers, isa, epoch: Cell::new(0), scratch: RefCell::default() }
    }

    /// Number of threads that take part in a run, the caller counted.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The instruction set that ops on this pool use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Calls `body(worker, workers)` once on every thread, and returns when all are done.
    ///
    /// # Panics
    /// If `body` panicked on any thread (all of them have returned by then).
    pub fn run<F: Fn(usize, usize) + Sync>(&self, body: F) {
        let threads = self.threads();
        if threads == 1 {
            return body(0, 1);
        }
        let shared = &*self.shared;
        let call: &(dyn Fn(usize, usize) + Sync) = &body;
        // SAFETY: `pending` is 0, so no worker looks at these cells; the erased lifetime ends before `body` does,
        // because this function waits for `pending` to return to 0 even when its own call panics.
        unsafe {
            *shared.job.get() = Some(Job { call: std::mem::transmute::<&_, &'static _>(call) });
            *shared.owner.get() = Some(thread::current());
        }
        shared.pending.store(threads - 1, Ordering::Relaxed);
        self.epoch.set(self.epoch.get() + 1);
        shared.epoch.store(self.epoch.get(), Ordering::SeqCst);
        for (parked, worker) in shared.parked.iter().zip(&self.workers) {
            if parked.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        let mine = catch_unwind(AssertUnwindSafe(|| body(0, threads)));
        self.wait();
        let theirs = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(payload) = mine {
            resume_unwind(payload);
        }
        assert!(!theirs, "a worker thread of the pool panicked");
    }

    /// Calls `body(task)` for every `task` in `0..tasks`, each on whichever thread is free; returns when all are done.
    pub fn tasks<F: Fn(usize) + Sync>(&self, tasks: usize, body: F) {
        if tasks <= 1 || self.threads() == 1 {
            return (0..tasks).for_each(body);
        }
        let next = AtomicUsize::new(0);
        self.run(|_, _| {
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return;
                }
                body(task);
            }
        });
    }

    /// The pool's scratch; no op may start another while it holds it.
    pub(crate) fn scratch(&self) -> RefMut<'_, Scratch> {
        self.scratch.borrow_mut()
    }

    fn wait(&self) {
        let shared = &*self.shared;
        if spin_until(|| shared.pending.load(Ordering::Acquire) == 0) {
            return;
        }
        shared.owner_parked.store(true, Ordering::SeqCst);
        while shared.pending.load(Ordering::SeqCst) != 0 {
            thread::park();
        }
        shared.owner_parked.store(false, Ordering::Relaxed);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches every panic of a job, so joining it cannot fail.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, worker: usize, workers: usize) {
    let mut seen = 0;
    let changed =
        |seen: u64| shared.epoch.load(Ordering::SeqCst) != seen || shared.stop.load(Ordering::SeqCst);
    loop {
        if !spin_until(|| changed(seen)) {
            let parked = &shared.parked[worker - 1];
            parked.store(true, Ordering::SeqCst);
            while !changed(seen) {
                thread::park();
            }
            parked.store(false, Ordering::SeqCst);
        }
        let epoch = shared.epoch.load(Ordering::Acquire);
        if epoch == seen {
            return; // woken by `stop`
        }
        seen = epoch;
        // SAFETY: the epoch was bumped after these cells were written, and they stay until `pending` is 0.
        let (job, owner) = unsafe { (*shared.job.get(), (*shared.owner.get()).clone()) };
        if let Some(job) = job
            && catch_unwind(AssertUnwindSafe(|| (job.call)(worker, workers))).is_err()
        {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        // After this the owner may return and reuse the cells: nothing of the job is touched below.
        let last = shared.pending.fetch_sub(1, Ordering::SeqCst) == 1;
        if last
            && shared.owner_parked.load(Ordering::SeqCst)
            && let Some(owner) = owner
        {
            owner.unpark();
        }
    }
}

/// Spins for at most [`SPIN`]; whether `done` became true.
fn spin_until(done: impl Fn() -> bool) -> bool {
    let mut start = None;
    loop {
        for _ in 0..64 {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        let start = *start.get_or_insert_with(Instant::now);
        if start.elapsed() > SPIN {
            return false;
        }
    }
}

#[allow(clippy::panic)] // a process without its threads cannot serve
fn panic_start(worker: usize, error: &std::io::Error) -> ! {
    panic!("cannot start worker thread {worker}: {error}; raise the pod's pid limit")
}
