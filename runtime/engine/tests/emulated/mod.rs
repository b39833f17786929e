//! The CUDA backend on a device that the CPU plays: the emulation of the kernels' tests.

#![allow(dead_code)]

#[path = "../../../../kernels/tests/cuda/emulation.rs"]
mod emulation;
#[path = "../../../../kernels/tests/cuda/guarded.rs"]
mod guarded;
#[path = "../../../../kernels/tests/cuda/sources.rs"]
mod sources;

use coterie_engine::backend::cuda::Cuda;
use coterie_engine::moe::host::MakeBackend;
use emulation::Emulation;
use std::sync::{Arc, OnceLock};

/// The one device.
pub fn device() -> Arc<Emulation> {
    static DEVICE: OnceLock<Arc<Emulation>> = OnceLock::new();
    DEVICE.get_or_init(|| Arc::new(Emulation::load(false))).clone()
}

/// Makes backends on it.
pub fn backend() -> MakeBackend<Cuda<Emulation>> {
    let device = device();
    Arc::new(move |threads| Cuda::new(device.clone(), threads))
}
