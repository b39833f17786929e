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

/// Makes backends on one device.
pub fn backend() -> MakeBackend<Cuda<Emulation>> {
    static DEVICE: OnceLock<Arc<Emulation>> = OnceLock::new();
    let device = DEVICE.get_or_init(|| Arc::new(Emulation::load(false)));
    Arc::new(|threads| Cuda::new(device.clone(), threads))
}
