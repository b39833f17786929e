//! The GPU's clock, copies within its memory, and what it says of itself.

use cudarc::driver::{result, sys};

use super::{Driver, failed};
use crate::cuda::device::DeviceError;
use crate::cuda::launch::Address;
use crate::cuda::timed::Timed;

/// An event of the stream.
pub struct Mark(sys::CUevent);

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: it was made by `mark`, and is dropped once.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

impl Timed for Driver {
    type Mark = Mark;

    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceError> {
        self.enter()?;
        // SAFETY: the caller's.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) }
            .map_err(|error| failed("cuMemcpyDtoD", error))
    }

    fn mark(&self) -> Result<Mark, DeviceError> {
        self.enter()?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let mark = Mark(event.map_err(|error| failed("cuEventCreate", error))?);
        // SAFETY: both are there.
        unsafe { result::event::record(mark.0, self.stream) }
            .map_err(|error| failed("cuEventRecord", error))?;
        Ok(mark)
    }

    fn seconds(&self, from: &Mark, to: &Mark) -> Result<f64, DeviceError> {
        self.enter()?;
        // SAFETY: both were recorded.
        let milliseconds =
            unsafe { result::event::synchronize(to.0).and_then(|()| result::event::elapsed(from.0, to.0)) };
        Ok(f64::from(milliseconds.map_err(|error| failed("cuEventElapsedTime", error))?) / 1e3)
    }
}

/// What figures are to be read beside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// What the GPU is called.
    pub name: String,
    /// How many multiprocessors it has.
    pub multiprocessors: usize,
    /// Bytes of its second cache.
    pub l2_bytes: usize,
    /// Bytes of its memory.
    pub memory_bytes: usize,
    /// The CUDA version that the driver knows: major, minor.
    pub cuda: [u32; 2],
}

impl Driver {
    /// What the GPU says of itself.
    pub fn about(&self) -> Result<About, DeviceError> {
        use sys::CUdevice_attribute as Attribute;
        self.enter()?;
        let (mut device, mut version) = (0, 0);
        // SAFETY: the context is current; both write a number.
        let (device, version) = unsafe {
            let asked = sys::cuCtxGetDevice(&mut device).result();
            let asked = asked.and_then(|()| sys::cuDriverGetVersion(&mut version).result());
            asked.map_err(|error| failed("cuCtxGetDevice", error))?;
            (device, version)
        };
        let number = |which| {
            // SAFETY: the device is there.
            let number = unsafe { result::device::get_attribute(device, which) };
            number.map(|number| number as usize).map_err(|error| failed("cuDeviceGetAttribute", error))
        };
        // SAFETY: the device is there.
        let memory = unsafe { result::device::total_mem(device) };
        Ok(About {
            name: result::device::get_name(device).map_err(|error| failed("cuDeviceGetName", error))?,
            multiprocessors: number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            l2_bytes: number(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
            memory_bytes: memory.map_err(|error| failed("cuDeviceTotalMem", error))?,
            cuda: [version / 1000, version % 1000 / 10].map(|part| part as u32),
        })
    }
}
