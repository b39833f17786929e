//! Finding the driver, a GPU that there are kernels for, and their machine code.

use std::collections::HashMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cudarc::driver::{DriverError, result, sys};

use super::{Driver, Slabs, Staging};
use crate::cuda::hopper;
use crate::cuda::{HOPPER, KERNELS, compiled_for};

/// The oldest driver that takes the machine code, as CUDA numbers them: major and minor version.
pub const NEEDED_VERSION: [u32; 2] = [13, 0];

/// What kernels are compiled for.
pub const ARCHITECTURES: [&str; 4] = ["sm_80", "sm_90a", "sm_100a", "sm_120a"];

/// Of every architecture that kernels are compiled for the least that a block may have, bytes.
const MOST_SHARED: i32 = 99 << 10;

/// Why no GPU can be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No driver is installed, or it is not mounted into the container.
    #[error("there is no CUDA driver: libcuda.so.1 is not found")]
    NoDriver,
    /// Kernels would not be loaded.
    #[error(
        "the CUDA driver is too old: it knows CUDA {}.{}, kernels need {}.{} (driver 580 or newer)",
        found[0], found[1], NEEDED_VERSION[0], NEEDED_VERSION[1]
    )]
    OldDriver {
        /// The CUDA version that it knows.
        found: [u32; 2],
    },
    /// A driver without a GPU.
    #[error("the CUDA driver has no GPU for this process")]
    NoDevice,
    /// A GPU that no kernel was compiled for.
    #[error(
        "the GPU {name} has compute capability {}.{}, for which there are no kernels; there are for {}",
        capability[0], capability[1], ARCHITECTURES.join(", ")
    )]
    NoKernels {
        /// What the GPU is called.
        name: String,
        /// Major and minor.
        capability: [i32; 2],
    },
    /// The folder of machine code is not there, or not whole.
    #[error("kernels for this GPU cannot be read from {}: {why}", path.display())]
    Cubins {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The driver refused a call.
    #[error("the CUDA driver refuses {what}: {why}")]
    Refused {
        /// The call.
        what: &'static str,
        /// Its words.
        why: String,
    },
}

fn refused(what: &'static str) -> impl Fn(DriverError) -> OpenError {
    move |error| OpenError::Refused { what, why: format!("{:?}", error.0) }
}

impl Driver {
    /// Opens the first GPU, with the kernels in the folder `cubins`: one file a source in a folder an architecture.
    pub fn open(cubins: &Path) -> Result<Driver, OpenError> {
        // SAFETY: this looks for the driver's own library, which may be loaded.
        if !unsafe { sys::is_culib_present() } {
            return Err(OpenError::NoDriver);
        }
        let mut version = 0;
        // SAFETY: may be asked before anything else, and writes a number.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(refused("cuDriverGetVersion"))?;
        let found = [version / 1000, version % 1000 / 10].map(|part| part as u32);
        if found < NEEDED_VERSION {
            return Err(OpenError::OldDriver { found });
        }
        match result::init() {
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => return Err(OpenError::NoDevice),
            other => other.map_err(refused("cuInit"))?,
        }
        if result::device::get_count().map_err(refused("cuDeviceGetCount"))? == 0 {
            return Err(OpenError::NoDevice);
        }
        let device = result::device::get(0).map_err(refused("cuDeviceGet"))?;
        let architecture = architecture(device)?;
        // SAFETY: the device is there, and from here on its context is this thread's.
        unsafe {
            let context = result::primary_ctx::retain(device).map_err(refused("cuDevicePrimaryCtxRetain"))?;
            result::ctx::set_current(context).map_err(refused("cuCtxSetCurrent"))?;
            let kind = result::stream::StreamKind::NonBlocking;
            Ok(Driver {
                context,
                stream: result::stream::create(kind).map_err(refused("cuStreamCreate"))?,
                kernels: kernels(cubins, architecture)?,
                staging: Mutex::new(Staging::new().map_err(refused("cuMemHostAlloc"))?),
                slabs: Mutex::new(if is_off(SLABS) { Slabs::of_one_piece() } else { Slabs::default() }),
                architecture,
                uses_wgmma: compiled_for(HOPPER, architecture) && !is_off(WGMMA),
            })
        }
    }
}

/// A variable of the environment that takes Hopper's products out of use when it is `off`: the others serve, slower.
const WGMMA: &str = "COTERIE_WGMMA";
/// And one that asks the driver for each piece of memory by itself, so that compute-sanitizer sees where a piece ends.
const SLABS: &str = "COTERIE_GPU_SLABS";

fn is_off(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "off")
}

fn architecture(device: sys::CUdevice) -> Result<&'static str, OpenError> {
    use sys::CUdevice_attribute as Attribute;
    let [major, minor] = [
        Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
        Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    ]
    // SAFETY: the device is there.
    .map(|which| unsafe { result::device::get_attribute(device, which) });
    let capability = [major, minor].map(|part| part.map_err(refused("cuDeviceGetAttribute")));
    let [major, minor] = capability;
    match [major?, minor?] {
        // What is compiled for 8.0 runs on every 8.x, and only what is compiled for 12.0 on 12.0.
        [8, _] => Ok(ARCHITECTURES[0]),
        [9, 0] => Ok(ARCHITECTURES[1]),
        [10, 0] => Ok(ARCHITECTURES[2]),
        [12, 0] => Ok(ARCHITECTURES[3]),
        capability => {
            let name = result::device::get_name(device).unwrap_or_default();
            Err(OpenError::NoKernels { name, capability })
        }
    }
}

/// Every kernel of the architecture's sources, each in the file of its source.
///
/// # Safety
/// There is a current context.
unsafe fn kernels(
    cubins: &Path,
    architecture: &str,
) -> Result<HashMap<&'static str, sys::CUfunction>, OpenError> {
    let folder = cubins.join(architecture);
    let mut kernels = HashMap::new();
    for (source, names) in KERNELS.iter().filter(|(source, _)| compiled_for(source, architecture)) {
        let most_shared = if *source == HOPPER { hopper::MOST_SHARED } else { MOST_SHARED };
        let path = folder.join(source).with_extension("cubin");
        let wrong = |why: String| OpenError::Cubins { path: path.clone(), why };
        let cubin = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        if !cubin.starts_with(b"\x7fELF") {
            return Err(wrong("it is no machine code".to_owned()));
        }
        // SAFETY: it is whole as far as can be told; who can change it can change this program.
        let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) }
            .map_err(|error| wrong(format!("the driver says {:?}", error.0)))?;
        for name in *names {
            let symbol = CString::new(*name).map_err(|error| wrong(error.to_string()))?;
            use sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED;
            // SAFETY: modules are never unloaded.
            let function = unsafe {
                result::module::get_function(module, symbol).and_then(|function| {
                    result::function::set_function_attribute(function, SHARED, most_shared)?;
                    Ok(function)
                })
            };
            let of_kernel = |error: DriverError| wrong(format!("kernel {name}: {:?}", error.0));
            kernels.insert(*name, function.map_err(of_kernel)?);
        }
    }
    Ok(kernels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_code_that_is_not_there_or_is_none_is_told() {
        let folder = std::env::temp_dir().join(format!("coterie-cubins-{}", std::process::id()));
        // SAFETY: no file is such that the driver is asked.
        let refused = || unsafe { kernels(&folder, "") }.expect_err("nothing is there").to_string();
        assert!(refused().contains("attention.cubin: No such file"), "{}", refused());
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        std::fs::write(folder.join("attention.cubin"), "// PTX").expect("a file can be written");
        let why = refused();
        std::fs::remove_dir_all(&folder).expect("the folder goes");
        assert!(why.contains("it is no machine code"), "{why}");
    }
}
