//! A GPU by its driver, which is looked for when the process runs: the same program starts where there is none.
//!
//! Everything happens on one stream, in the order in which it was asked for. What is copied to the GPU goes through
//! [pinned memory](staging), so that nobody waits for a kernel.

mod graphs;
mod open;
mod slabs;
mod staging;
mod timing;

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::driver::{DriverError, result, sys};

use super::device::{Device, DeviceError, GraphId};
use super::launch::{Address, Launch};
use super::{HOPPER, compiled_for};
pub use open::{ARCHITECTURES, NEEDED_VERSION, OpenError};
use slabs::Slabs;
use staging::Staging;
pub use timing::{About, Mark};

/// The first GPU of this machine, with every kernel in it.
pub struct Driver {
    context: sys::CUcontext,
    stream: sys::CUstream,
    kernels: HashMap<&'static str, sys::CUfunction>,
    staging: Mutex<Staging>,
    slabs: Mutex<Slabs>,
    architecture: &'static str,
    /// Hopper's products are used.
    uses_wgmma: bool,
}

// SAFETY: the driver may be called from any thread that has set the context, which every call here does.
unsafe impl Send for Driver {}
// SAFETY: the same; what must not be used by two threads at once is behind a lock.
unsafe impl Sync for Driver {}

impl Driver {
    /// The architecture that its kernels were compiled for.
    pub fn architecture(&self) -> &'static str {
        self.architecture
    }

    /// Whether it runs the kernels of Hopper, used or not.
    pub fn has_warpgroups(&self) -> bool {
        compiled_for(HOPPER, self.architecture)
    }

    fn slabs(&self) -> MutexGuard<'_, Slabs> {
        self.slabs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the GPU this thread's.
    fn enter(&self) -> Result<(), DeviceError> {
        // SAFETY: the context is there as long as the process.
        unsafe { result::ctx::set_current(self.context) }.map_err(|error| failed("cuCtxSetCurrent", error))
    }
}

fn failed(what: &'static str, error: DriverError) -> DeviceError {
    DeviceError::Failed { what, why: format!("{:?}", error.0) }
}

impl Device for Driver {
    fn free_memory(&self) -> Result<usize, DeviceError> {
        self.enter()?;
        let (free, _) = result::mem_get_info().map_err(|error| failed("cuMemGetInfo", error))?;
        Ok(free + self.slabs().free_bytes())
    }

    fn is_hopper(&self) -> bool {
        self.uses_wgmma
    }

    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError> {
        self.enter()?;
        // SAFETY: nothing is asked of memory that nobody has yet.
        let allocate = |bytes| unsafe { result::malloc_sync(bytes) };
        self.slabs().take(bytes, allocate).map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => DeviceError::NoMemory { bytes },
            _ => failed("cuMemAlloc", error),
        })
    }

    unsafe fn free(&self, memory: Address) {
        let Some(slab) = self.slabs().give_back(memory) else { return };
        // A context that broke has lost its memory anyway.
        let _ = self.enter().map(|()| {
            // SAFETY: the caller's; nothing of the stream reads it any more when that is done.
            unsafe { result::stream::synchronize(self.stream).and_then(|()| result::free_sync(slab)) }
        });
    }

    unsafe fn write(&self, to: Address, from: &[u8]) -> Result<(), DeviceError> {
        let mut copy = |at: usize, to: &mut [u8]| to.copy_from_slice(&from[at..][..to.len()]);
        // SAFETY: the caller's.
        unsafe { self.write_by(to, from.len(), &mut copy) }
    }

    unsafe fn write_by(
        &self,
        to: Address,
        bytes: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<(), DeviceError> {
        self.enter()?;
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the caller's.
        unsafe { staging.write(to, bytes, self.stream, fill) }.map_err(|error| failed("cuMemcpyHtoD", error))
    }

    unsafe fn read(&self, from: Address, to: &mut [u8]) -> Result<(), DeviceError> {
        self.enter()?;
        // SAFETY: the caller's; nobody has `to` before the copy has ended.
        unsafe {
            result::memcpy_dtoh_async(to, from, self.stream)
                .and_then(|()| result::stream::synchronize(self.stream))
                .map_err(|error| failed("cuMemcpyDtoH", error))
        }
    }

    unsafe fn launch<P>(&self, launch: &Launch<P>) -> Result<(), DeviceError> {
        self.enter()?;
        let Launch { kernel, grid: [x, y, z], block, shared, ref parameters } = *launch;
        let Some(&function) = self.kernels.get(kernel) else {
            return Err(DeviceError::Failed { what: kernel, why: "there is no such kernel".to_owned() });
        };
        let mut parameters = [std::ptr::from_ref(parameters).cast_mut().cast::<c_void>()];
        // SAFETY: the kernel takes the launch's struct, which the driver copies; the rest is the caller's.
        unsafe {
            let (grid, block) = ((x, y, z), (block, 1, 1));
            result::launch_kernel(function, grid, block, shared as u32, self.stream, &mut parameters)
        }
        .map_err(|error| failed(kernel, error))
    }

    fn begin_capture(&self) -> Result<(), DeviceError> {
        self.enter()?;
        // SAFETY: the stream is there, and this thread has its context.
        unsafe { graphs::begin(self.stream) }
    }

    fn end_capture(&self) -> Result<GraphId, DeviceError> {
        self.enter()?;
        // SAFETY: the same.
        unsafe { graphs::end(self.stream) }
    }

    unsafe fn replay(&self, graph: GraphId) -> Result<(), DeviceError> {
        self.enter()?;
        // SAFETY: the caller's.
        unsafe { graphs::replay(graph, self.stream) }
    }

    unsafe fn drop_graph(&self, graph: GraphId) {
        // A context that broke has lost its graphs anyway.
        // SAFETY: the caller's.
        let _ = self.enter().map(|()| unsafe { graphs::forget(graph) });
    }
}
