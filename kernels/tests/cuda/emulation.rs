//! The kernels as C++ for this machine's processor, with threads that `cu/emulated/` plays.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::SystemTime;

use coterie_kernels::cuda::device::{Device, DeviceError, GraphId};
use coterie_kernels::cuda::launch::{Address, Launch};

use super::graphs::{Ask, Asked, Graphs, Recorded};
use super::guarded;

/// A kernel: parameters, their size, the grid, threads and shared memory of a block, the order; what went wrong.
type Entry = unsafe extern "C" fn(*const c_void, usize, *const u32, u32, usize, bool) -> *const c_char;

/// Bytes that it has, for whoever asks.
const MEMORY: usize = 1 << 30;

/// A device that runs the threads of a block one after another.
pub struct Emulation {
    entries: BTreeMap<String, Entry>,
    /// From the last thread of the last block to the first of the first: what a GPU leaves open must not matter.
    backwards: bool,
    graphs: Graphs,
}

impl Emulation {
    /// All kernels.
    pub fn load(backwards: bool) -> Emulation {
        Emulation::of(super::sources::all(), backwards)
    }

    /// Compiles what is older than its sources, and loads all of it.
    pub fn of(sources: Vec<PathBuf>, backwards: bool) -> Emulation {
        let mut entries = BTreeMap::new();
        for (source, library) in build(sources) {
            let path =
                CString::new(library.as_os_str().as_encoded_bytes()).expect("a path has no zero bytes");
            // SAFETY: a library that was just made of our sources; each kernel in it is of the type.
            unsafe {
                let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
                assert!(!handle.is_null(), "{}: {:?}", library.display(), CStr::from_ptr(libc::dlerror()));
                for name in super::sources::kernels(&source) {
                    let symbol = CString::new(name.as_str()).expect("a name has no zero bytes");
                    let symbol = libc::dlsym(handle, symbol.as_ptr());
                    assert!(!symbol.is_null(), "{} has {name}", library.display());
                    entries.insert(name, std::mem::transmute::<*mut c_void, Entry>(symbol));
                }
            }
        }
        Emulation { entries, backwards, graphs: Graphs::default() }
    }

    /// The same, which records nothing.
    pub fn without_capture(self) -> Emulation {
        self.graphs.refuse();
        self
    }

    /// What it was asked for since it was loaded.
    pub fn asked(&self) -> Asked {
        self.graphs.asked()
    }

    /// Runs a kernel to its end, or to what a GPU does not allow.
    pub fn run<P>(&self, launch: &Launch<P>) -> Result<(), String> {
        self.run_recorded(&Recorded::new(launch))
    }

    fn run_recorded(&self, recorded: &Recorded) -> Result<(), String> {
        let Recorded { kernel, grid, block, shared, parameters, bytes } = recorded;
        let entry = self.entries.get(*kernel).ok_or("there is no such kernel")?;
        // SAFETY: the addresses among the parameters are of guarded buffers that outlive the call.
        unsafe {
            let wrong =
                entry(parameters.as_ptr().cast(), *bytes, grid.as_ptr(), *block, *shared, self.backwards);
            if wrong.is_null() { Ok(()) } else { Err(CStr::from_ptr(wrong).to_string_lossy().into_owned()) }
        }
    }
}

impl Device for Emulation {
    fn free_memory(&self) -> Result<usize, DeviceError> {
        Ok(MEMORY)
    }

    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError> {
        self.graphs.ask(Ask::Allocate)?;
        Ok(guarded::allocate(bytes))
    }

    unsafe fn free(&self, memory: Address) {
        self.graphs.frees(guarded::range(memory));
        // SAFETY: the caller's.
        unsafe { guarded::free(memory) };
    }

    unsafe fn write(&self, to: Address, from: &[u8]) -> Result<(), DeviceError> {
        self.graphs.ask(Ask::Write)?;
        let to = std::ptr::with_exposed_provenance_mut::<u8>(to as usize);
        // SAFETY: the caller's.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        Ok(())
    }

    unsafe fn read(&self, from: Address, to: &mut [u8]) -> Result<(), DeviceError> {
        self.graphs.ask(Ask::Read)?;
        let from = std::ptr::with_exposed_provenance::<u8>(from as usize);
        // SAFETY: the caller's; kernels have ended when they return.
        unsafe { to.as_mut_ptr().copy_from_nonoverlapping(from, to.len()) };
        Ok(())
    }

    unsafe fn launch<P>(&self, launch: &Launch<P>) -> Result<(), DeviceError> {
        self.graphs.ask(Ask::Launch)?;
        if self.graphs.took(launch) {
            return Ok(());
        }
        self.run(launch).map_err(|why| DeviceError::Failed { what: launch.kernel, why })
    }

    fn begin_capture(&self) -> Result<(), DeviceError> {
        self.graphs.begin()
    }

    fn end_capture(&self) -> Result<GraphId, DeviceError> {
        self.graphs.end()
    }

    unsafe fn replay(&self, graph: GraphId) -> Result<(), DeviceError> {
        self.graphs.ask(Ask::Replay)?;
        self.graphs.get(graph)?.iter().try_for_each(|step| {
            self.run_recorded(step).map_err(|why| DeviceError::Failed { what: step.kernel, why })
        })
    }

    unsafe fn drop_graph(&self, graph: GraphId) {
        self.graphs.forget(graph);
    }
}

/// Every source with its library.
fn build(sources: Vec<PathBuf>) -> Vec<(PathBuf, PathBuf)> {
    // Checkouts that share a target folder do not share what their kernels became.
    let folder = super::sources::folder().canonicalize().expect("the sources are there");
    let checkout = folder.to_string_lossy().replace(['/', '\\', ':'], "_");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulated").join(checkout);
    fs::create_dir_all(&out).expect("the build folder can be written");
    // Test binaries run one after another, their tests in threads.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock().expect("nobody failed to build");
    let own = super::sources::in_folder(&super::sources::folder().join("emulated"), "h");
    let headers =
        super::sources::headers().into_iter().chain(own).map(|header| changed(&header)).max().flatten();
    let all: Vec<(PathBuf, PathBuf)> = sources
        .into_iter()
        .map(|source| {
            let library = out.join(source.file_stem().expect("a source has a name")).with_extension("so");
            (source, library)
        })
        .collect();
    let stale = all.iter().filter(|(source, library)| changed(library) < changed(source).max(headers));
    let started: Vec<(Child, &Path)> =
        stale.map(|(source, library)| (compile(source, library), &**source)).collect();
    for (mut compiler, source) in started {
        let status = compiler.wait().expect("the compiler ends");
        assert!(status.success(), "{} compiles as C++", source.display());
    }
    all
}

fn changed(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}

/// Neither compiler fuses a product into an addition but where a kernel says so with `fmaf`. A GPU's exponentials and the order
/// in which a tensor core adds differ from ours, so its results are close to these, not equal.
fn compile(source: &Path, library: &Path) -> Child {
    let options = "-std=c++17 -O2 -fPIC -shared -ffp-contract=off -fno-strict-aliasing -U_FORTIFY_SOURCE -Wall -Wno-unknown-pragmas";
    let mut compiler = Command::new(std::env::var("CXX").unwrap_or_else(|_| "g++".into()));
    compiler.args(options.split(' ')).args(["-DCOTERIE_EMULATED", "-x", "c++"]);
    compiler.arg("-I").arg(super::sources::folder()).arg(source).arg("-o").arg(library);
    compiler.spawn().expect("g++ is there (or another compiler that CXX names)")
}
