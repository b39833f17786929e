//! Worker threads: every one runs, panics arrive, idle ones sleep.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coterie_kernels::cpu::pool::Pool;

#[test]
fn every_worker_runs_once_per_run() {
    for threads in [1, 2, 5] {
        let pool = Pool::new(threads);
        assert_eq!(pool.threads(), threads);
        let calls: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
        for run in 1..=2000 {
            pool.run(|worker, workers| {
                assert_eq!(workers, threads);
                calls[worker].fetch_add(1, Ordering::Relaxed);
            });
            assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == run));
            if run % 500 == 0 {
                std::thread::sleep(Duration::from_millis(2)); // let them park
            }
        }
    }
}

#[test]
fn every_task_runs_once() {
    let pool = Pool::new(3);
    let calls: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
    pool.tasks(calls.len(), |task| {
        calls[task].fetch_add(1, Ordering::Relaxed);
    });
    assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == 1));
}

#[test]
fn a_panic_on_any_thread_reaches_the_caller_and_the_pool_lives_on() {
    let pool = Pool::new(3);
    for culprit in 0..3 {
        let finished = AtomicUsize::new(0);
        let run = || {
            pool.run(|worker, _| {
                assert_ne!(worker, culprit, "the culprit");
                std::thread::sleep(Duration::from_millis(5));
                finished.fetch_add(1, Ordering::Relaxed);
            })
        };
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        assert_eq!(finished.load(Ordering::Relaxed), 2, "the others were waited for");
        let count = AtomicUsize::new(0);
        pool.run(|_, _| _ = count.fetch_add(1, Ordering::Relaxed));
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }
}

#[test]
fn the_caller_waits_for_a_slow_worker() {
    let pool = Pool::new(2);
    let done = AtomicUsize::new(0);
    pool.run(|worker, _| {
        if worker == 1 {
            std::thread::sleep(Duration::from_millis(30));
            done.store(1, Ordering::Relaxed);
        }
    });
    assert_eq!(done.load(Ordering::Relaxed), 1);
}

/// A pool may be made on one thread and used on another.
#[test]
fn a_pool_can_move() {
    let pool = Pool::new(2);
    pool.run(|_, _| {});
    let count = std::thread::spawn(move || {
        let count = AtomicUsize::new(0);
        pool.run(|_, _| _ = count.fetch_add(1, Ordering::Relaxed));
        count.into_inner()
    });
    assert_eq!(count.join().expect("no panic"), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn idle_workers_use_no_cpu() {
    let pool = Pool::new(4);
    let workers = std::sync::Mutex::new(Vec::new());
    pool.run(|worker, _| {
        if worker > 0 {
            // SAFETY: gettid has no conditions.
            workers.lock().expect("no panic").push(unsafe { libc::gettid() });
        }
    });
    let workers = workers.into_inner().expect("no panic");
    let run = || workers.iter().map(|tid| nanoseconds_run(*tid)).collect::<Vec<u64>>();
    // On a busy machine it takes a while until every worker got to park.
    let idle = (0..50).any(|_| {
        let before = run();
        std::thread::sleep(Duration::from_millis(100));
        run() == before
    });
    assert!(idle, "idle workers keep running");
}

/// Nanoseconds that a thread of this process has run.
#[cfg(target_os = "linux")]
fn nanoseconds_run(tid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).expect("schedstat");
    stat.split_whitespace().next().and_then(|first| first.parse().ok()).expect("nanoseconds")
}
