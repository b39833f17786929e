//! What runs the kernels: a GPU, or its emulation.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use coterie_kernels::cuda::device::Device;
use coterie_kernels::cuda::driver::Driver;
use coterie_kernels::cuda::launch::Launch;

use super::emulation::Emulation;

/// One of both.
pub enum Machine {
    Emulated(Emulation),
    Gpu(&'static Arc<Driver>),
    /// One of both, with the products that only Hopper has.
    Hopper(Box<Machine>),
}

/// The GPU of this process, if it has opened one.
static GPU: OnceLock<Arc<Driver>> = OnceLock::new();

/// The GPU, if one was opened.
pub fn opened() -> Option<&'static Arc<Driver>> {
    GPU.get()
}

impl Machine {
    /// The emulation, whose threads run from the first to the last or the other way round.
    pub fn emulated(backwards: bool) -> Machine {
        Machine::Emulated(Emulation::load(backwards))
    }

    /// The first GPU, with the kernels in `cubins`.
    pub fn gpu(cubins: &Path) -> Machine {
        let open = || Driver::open(cubins).map_err(|why| why.to_string()).expect("there is a CUDA device");
        Machine::Gpu(GPU.get_or_init(|| Arc::new(open())))
    }

    /// The same machine, whose products are Hopper's.
    pub fn hopper(self) -> Machine {
        Machine::Hopper(Box::new(self))
    }

    /// Runs a kernel to its end.
    ///
    /// # Panics
    /// If the kernel does what a GPU does not allow.
    pub fn launch<P>(&self, launch: &Launch<P>) {
        match self {
            Machine::Emulated(emulation) => emulation.run(launch).expect(launch.kernel),
            Machine::Hopper(machine) => machine.launch(launch),
            // SAFETY: the checks keep what they name in a launch, and read what it has written.
            Machine::Gpu(gpu) => unsafe { gpu.launch(launch) }.expect(launch.kernel),
        }
    }
}
