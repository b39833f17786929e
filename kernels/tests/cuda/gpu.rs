//! A GPU by its driver (docs.nvidia.com/cuda/cuda-driver-api), for the same checks as the emulation's. Memory is managed, so that
//! buffers are read and written from both sides.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::OnceLock;

use coterie_kernels::cuda::launch::{Address, Launch};

use super::sources;

type Code = c_int;
type Kernel = *mut c_void;

/// The first GPU of this machine, its driver and the kernels in it.
pub struct Gpu {
    driver: *mut c_void,
    context: *mut c_void,
    kernels: BTreeMap<String, usize>,
    /// For people: its architecture.
    pub architecture: &'static str,
}

// SAFETY: the driver may be called from any thread that has set the context.
unsafe impl Send for Gpu {}
// SAFETY: the same.
unsafe impl Sync for Gpu {}

/// The GPU that buffers are made on, if any: there is one in a process.
static GPU: OnceLock<Gpu> = OnceLock::new();

/// From cuda.h.
const COMPUTE_CAPABILITY_MAJOR: c_int = 75;
const COMPUTE_CAPABILITY_MINOR: c_int = 76;
const MAX_DYNAMIC_SHARED_SIZE_BYTES: c_int = 8;
const ATTACH_GLOBAL: c_uint = 1;

impl Gpu {
    /// The GPU, if one was opened.
    pub fn opened() -> Option<&'static Gpu> {
        GPU.get()
    }

    /// Opens the first GPU with the kernels that were compiled into `cubins`. Says why there is none.
    pub fn open(cubins: &Path) -> Result<&'static Gpu, String> {
        let gpu = Gpu::load(cubins)?;
        Ok(GPU.get_or_init(|| gpu))
    }

    fn load(cubins: &Path) -> Result<Gpu, String> {
        // SAFETY: the driver's own library; the functions' types are those of cuda.h.
        unsafe {
            let driver = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW);
            if driver.is_null() {
                return Err("no CUDA device: there is no driver (libcuda.so.1)".into());
            }
            let mut gpu =
                Gpu { driver, context: std::ptr::null_mut(), kernels: BTreeMap::new(), architecture: "" };
            let init: unsafe extern "C" fn(c_uint) -> Code = gpu.function(c"cuInit")?;
            succeeded("no CUDA device: cuInit", init(0))?;
            let mut device: c_int = 0;
            let get: unsafe extern "C" fn(*mut c_int, c_int) -> Code = gpu.function(c"cuDeviceGet")?;
            succeeded("no CUDA device: cuDeviceGet", get(&mut device, 0))?;
            let attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> Code =
                gpu.function(c"cuDeviceGetAttribute")?;
            let mut capability = [0; 2];
            for (value, which) in
                capability.iter_mut().zip([COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR])
            {
                succeeded("cuDeviceGetAttribute", attribute(value, which, device))?;
            }
            gpu.architecture = match capability {
                [8, _] => "sm_80",
                [9, 0] => "sm_90a",
                [10, 0] => "sm_100a",
                [12, 0] => "sm_120a",
                [major, minor] => return Err(format!("no kernels for compute capability {major}.{minor}")),
            };
            let retain: unsafe extern "C" fn(*mut *mut c_void, c_int) -> Code =
                gpu.function(c"cuDevicePrimaryCtxRetain")?;
            succeeded("cuDevicePrimaryCtxRetain", retain(&mut gpu.context, device))?;
            gpu.kernels(&cubins.join(gpu.architecture))?;
            Ok(gpu)
        }
    }

    /// # Safety
    /// There is a context.
    unsafe fn kernels(&mut self, cubins: &Path) -> Result<(), String> {
        // SAFETY: cubins are whole, names end with a zero byte.
        unsafe {
            self.enter()?;
            let load: unsafe extern "C" fn(*mut *mut c_void, *const c_void) -> Code =
                self.function(c"cuModuleLoadData")?;
            let find: unsafe extern "C" fn(*mut Kernel, *mut c_void, *const c_char) -> Code =
                self.function(c"cuModuleGetFunction")?;
            for source in sources::all() {
                let name = source.file_stem().ok_or("a source has a name")?;
                let cubin = cubins.join(name).with_extension("cubin");
                let cubin = std::fs::read(&cubin).map_err(|error| format!("{}: {error}", cubin.display()))?;
                let (mut module, mut kernel) = (std::ptr::null_mut(), std::ptr::null_mut());
                succeeded("cuModuleLoadData", load(&mut module, cubin.as_ptr().cast()))?;
                for name in sources::kernels(&source) {
                    let symbol = CString::new(name.as_str()).map_err(|error| error.to_string())?;
                    succeeded(&name, find(&mut kernel, module, symbol.as_ptr()))?;
                    self.kernels.insert(name, kernel as usize);
                }
            }
            Ok(())
        }
    }

    /// Runs a kernel, and waits for its end.
    pub fn launch<P>(&self, launch: &Launch<P>) -> Result<(), String> {
        type Run = unsafe extern "C" fn(
            Kernel,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            *mut c_void,
            *mut *mut c_void,
            *mut *mut c_void,
        ) -> Code;
        let kernel = self.kernels.get(launch.kernel).ok_or("no such kernel")?;
        let kernel = std::ptr::with_exposed_provenance_mut(*kernel);
        let [x, y, z] = launch.grid;
        let mut parameters = [std::ptr::from_ref(&launch.parameters).cast_mut().cast::<c_void>()];
        // SAFETY: the kernel takes the launch's struct; its addresses are of buffers that outlive the call, which waits.
        unsafe {
            self.enter()?;
            let set: unsafe extern "C" fn(Kernel, c_int, c_int) -> Code =
                self.function(c"cuFuncSetAttribute")?;
            let shared = launch.shared as c_int;
            succeeded("cuFuncSetAttribute", set(kernel, MAX_DYNAMIC_SHARED_SIZE_BYTES, shared))?;
            let run: Run = self.function(c"cuLaunchKernel")?;
            let (stream, extra) = (std::ptr::null_mut(), std::ptr::null_mut());
            let code = run(
                kernel,
                x,
                y,
                z,
                launch.block,
                1,
                1,
                shared as c_uint,
                stream,
                parameters.as_mut_ptr(),
                extra,
            );
            succeeded("cuLaunchKernel", code)?;
            let wait: unsafe extern "C" fn() -> Code = self.function(c"cuCtxSynchronize")?;
            succeeded("cuCtxSynchronize", wait())
        }
    }

    /// Memory that both sides see.
    pub fn allocate(&self, bytes: usize) -> Result<*mut c_void, String> {
        let mut address: Address = 0;
        // SAFETY: the types are those of cuda.h.
        unsafe {
            self.enter()?;
            let allocate: unsafe extern "C" fn(*mut Address, usize, c_uint) -> Code =
                self.function(c"cuMemAllocManaged")?;
            succeeded("cuMemAllocManaged", allocate(&mut address, bytes, ATTACH_GLOBAL))?;
        }
        Ok(std::ptr::with_exposed_provenance_mut(address as usize))
    }

    /// # Safety
    /// It was allocated here, and nobody uses it any more.
    pub unsafe fn free(&self, memory: *mut c_void) -> Result<(), String> {
        // SAFETY: the caller's.
        unsafe {
            self.enter()?;
            let free: unsafe extern "C" fn(Address) -> Code = self.function(c"cuMemFree_v2")?;
            succeeded("cuMemFree", free(memory as Address))
        }
    }

    /// Makes the GPU this thread's.
    fn enter(&self) -> Result<(), String> {
        // SAFETY: the context is there as long as the process.
        unsafe {
            let set: unsafe extern "C" fn(*mut c_void) -> Code = self.function(c"cuCtxSetCurrent")?;
            succeeded("cuCtxSetCurrent", set(self.context))
        }
    }

    /// # Safety
    /// `F` is the function's type.
    unsafe fn function<F: Copy>(&self, name: &CStr) -> Result<F, String> {
        // SAFETY: a loaded library and a string.
        let symbol = unsafe { libc::dlsym(self.driver, name.as_ptr()) };
        if symbol.is_null() {
            return Err(format!("the driver has no {name:?}; it is too old"));
        }
        // SAFETY: the caller's; functions are as large as pointers.
        Ok(unsafe { std::mem::transmute_copy(&symbol) })
    }
}

fn succeeded(what: &str, code: Code) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(format!("{what} failed with CUDA's code {code}")) }
}
