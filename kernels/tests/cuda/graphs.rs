//! Graphs of the emulated device, and what it was asked for. It is as strict as a GPU: who records asks for launches and nothing
//! else, and memory that a graph names is not freed while there is the graph.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{ThreadId, current};

use coterie_kernels::cuda::device::{DeviceError, GraphId};
use coterie_kernels::cuda::launch::{Address, Launch};

/// A launch, whatever its parameters are.
pub struct Recorded {
    pub kernel: &'static str,
    pub grid: [u32; 3],
    pub block: u32,
    pub shared: usize,
    /// The struct's bytes, aligned as it was.
    pub parameters: Vec<u64>,
    /// How many of them there are.
    pub bytes: usize,
}

impl Recorded {
    pub fn new<P>(launch: &Launch<P>) -> Recorded {
        let Launch { kernel, grid, block, shared, ref parameters } = *launch;
        let bytes = size_of::<P>();
        assert!(align_of::<P>() <= align_of::<u64>(), "{kernel}: parameters are of numbers");
        let mut words = vec![0u64; bytes.div_ceil(size_of::<u64>())];
        // SAFETY: as many bytes are there. What is between fields is read by nobody who would mind.
        unsafe {
            std::ptr::from_ref(parameters)
                .cast::<u8>()
                .copy_to_nonoverlapping(words.as_mut_ptr().cast::<u8>(), bytes);
        }
        Recorded { kernel, grid, block, shared, parameters: words, bytes }
    }
}

/// What a device was asked for since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Launches that ran or were recorded.
    pub launches: u64,
    pub replays: u64,
    pub reads: u64,
    pub writes: u64,
    pub allocations: u64,
    pub captures: u64,
}

#[derive(Default)]
struct Counts {
    launches: AtomicU64,
    replays: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    allocations: AtomicU64,
    captures: AtomicU64,
}

/// What somebody asks a device for.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    Launch,
    Replay,
    Read,
    Write,
    Allocate,
}

#[derive(Default)]
pub struct Graphs {
    asked: Counts,
    /// Is nothing to be recorded?
    refuses: AtomicBool,
    next: AtomicU64,
    /// By the thread that records.
    recording: Mutex<HashMap<ThreadId, Vec<Recorded>>>,
    recorded: Mutex<HashMap<GraphId, Arc<Vec<Recorded>>>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(what: &'static str, why: &str) -> DeviceError {
    DeviceError::Failed { what, why: why.to_owned() }
}

impl Graphs {
    pub fn asked(&self) -> Asked {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { launches, replays, reads, writes, allocations, captures } = &self.asked;
        Asked {
            launches: now(launches),
            replays: now(replays),
            reads: now(reads),
            writes: now(writes),
            allocations: now(allocations),
            captures: now(captures),
        }
    }

    /// From here on nothing is recorded.
    pub fn refuse(&self) {
        self.refuses.store(true, Ordering::Relaxed);
    }

    fn records(&self) -> bool {
        lock(&self.recording).contains_key(&current().id())
    }

    /// Counts what was asked for; refuses what cannot be recorded while this thread records.
    pub fn ask(&self, what: Ask) -> Result<(), DeviceError> {
        let count = match what {
            Ask::Launch => &self.asked.launches,
            Ask::Replay => &self.asked.replays,
            Ask::Read => &self.asked.reads,
            Ask::Write => &self.asked.writes,
            Ask::Allocate => &self.asked.allocations,
        };
        count.fetch_add(1, Ordering::Relaxed);
        match what {
            Ask::Launch => Ok(()),
            _ if self.records() => Err(refused("a capture", &format!("{what:?} cannot be recorded"))),
            _ => Ok(()),
        }
    }

    /// Whether the launch was recorded; if not, it is to be run.
    pub fn took<P>(&self, launch: &Launch<P>) -> bool {
        let mut recording = lock(&self.recording);
        let own = recording.get_mut(&current().id());
        own.map(|own| own.push(Recorded::new(launch))).is_some()
    }

    pub fn begin(&self) -> Result<(), DeviceError> {
        self.asked.captures.fetch_add(1, Ordering::Relaxed);
        if self.refuses.load(Ordering::Relaxed) {
            return Err(refused("begin_capture", "it is to fail"));
        }
        match lock(&self.recording).insert(current().id(), Vec::new()) {
            None => Ok(()),
            Some(_) => Err(refused("begin_capture", "this thread records already")),
        }
    }

    pub fn end(&self) -> Result<GraphId, DeviceError> {
        let recorded = lock(&self.recording).remove(&current().id());
        let recorded = recorded.ok_or_else(|| refused("end_capture", "this thread does not record"))?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.recorded).insert(id, Arc::new(recorded));
        Ok(id)
    }

    pub fn get(&self, graph: GraphId) -> Result<Arc<Vec<Recorded>>, DeviceError> {
        lock(&self.recorded).get(&graph).cloned().ok_or_else(|| refused("replay", "there is no such graph"))
    }

    /// # Panics
    /// If there is no such graph.
    pub fn forget(&self, graph: GraphId) {
        lock(&self.recorded).remove(&graph).expect("a graph is dropped once");
    }

    /// # Panics
    /// If this thread records, or a graph names an address in `memory`.
    pub fn frees(&self, memory: Range<Address>) {
        assert!(!self.records(), "nothing is freed in a capture");
        let names = |step: &Recorded| step.parameters.iter().any(|word| memory.contains(word));
        for recorded in lock(&self.recorded).values() {
            let found = recorded.iter().find(|step| names(step));
            assert!(
                found.is_none(),
                "{}: a graph uses memory that is freed",
                found.map_or("", |step| step.kernel)
            );
        }
    }
}
