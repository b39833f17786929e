//! The CUDA backend on a device that the CPU plays: the emulation of the kernels' tests.

#![allow(dead_code)]

#[path = "../../../../kernels/tests/cuda/emulation.rs"]
pub mod emulation;
#[path = "../../../../kernels/tests/cuda/graphs.rs"]
pub mod graphs;
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
    on(device())
}

/// The same, which start every kernel by itself.
pub fn without_graphs() -> MakeBackend<Cuda<Emulation>> {
    Arc::new(|threads| Cuda::new(device(), threads).without_graphs())
}

/// Makes backends on a device.
pub fn on(device: Arc<Emulation>) -> MakeBackend<Cuda<Emulation>> {
    Arc::new(move |threads| Cuda::new(device.clone(), threads))
}
