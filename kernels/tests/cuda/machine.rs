//! What runs the kernels: a GPU, or its emulation.

use coterie_kernels::cuda::launch::Launch;

use super::emulation::Emulation;
use super::gpu::Gpu;

/// One of both.
pub enum Machine {
    Emulated(Emulation),
    Gpu(&'static Gpu),
}

impl Machine {
    /// The emulation, whose threads run from the first to the last or the other way round.
    pub fn emulated(backwards: bool) -> Machine {
        Machine::Emulated(Emulation::load(backwards))
    }

    /// Runs a kernel to its end.
    ///
    /// # Panics
    /// If the kernel does what a GPU does not allow.
    pub fn launch<P>(&self, launch: &Launch<P>) {
        let ran = match self {
            Machine::Emulated(emulation) => emulation.launch(launch),
            Machine::Gpu(gpu) => gpu.launch(launch),
        };
        ran.expect(launch.kernel);
    }
}
