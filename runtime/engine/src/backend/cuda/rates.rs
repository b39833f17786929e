//! What a GPU's memory and the way to it can do, measured: the bounds that figures are held to.

use crate::load_error::LoadError;
use coterie_kernels::cuda::device::{Device, Memory};
use coterie_kernels::cuda::driver::Driver;
use coterie_kernels::cuda::elements::{Elements, Op};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Bytes of an array.
const ARRAY: usize = 256 << 20;
/// Bytes that are sent to the GPU.
const SENT: usize = 1 << 30;
const RUNS: usize = 5;
/// Launches before anybody waits, so that to wait is little of it.
const AT_ONCE: usize = 20;

/// A GPU, to be asked and measured beside the engine that computes on it.
pub struct Probe<D: Device = Driver>(Arc<D>);

impl Probe {
    /// The GPU that an engine with these kernels takes.
    pub fn open(cubins: &Path) -> Result<Probe, LoadError> {
        Ok(Probe(Arc::new(Driver::open(cubins)?)))
    }

    /// What its kernels were compiled for.
    pub fn architecture(&self) -> &'static str {
        self.0.architecture()
    }

    /// Bytes a second that kernels read and write.
    pub fn memory_rate(&self) -> Result<f64, LoadError> {
        self.memory_rate_of(ARRAY, RUNS)
    }

    /// Bytes a second from memory that the GPU reads by itself.
    pub fn upload_rate(&self) -> Result<f64, LoadError> {
        self.upload_rate_of(SENT)
    }
}

impl<D: Device> Probe<D> {
    /// On a device that is already there.
    pub fn of(device: Arc<D>) -> Probe<D> {
        Probe(device)
    }

    /// Bytes that nobody uses.
    pub fn free(&self) -> Result<usize, LoadError> {
        Ok(self.0.free_memory()?)
    }

    fn wait(&self, memory: &Memory<D>) -> Result<(), LoadError> {
        Ok(memory.read(0, &mut [0; 4])?)
    }

    /// The same with arrays of so many bytes: one is added to another, best run of several.
    pub fn memory_rate_of(&self, bytes: usize, runs: usize) -> Result<f64, LoadError> {
        let arrays = [0; 3].map(|_| Memory::new(&self.0, bytes));
        let [a, b, out] = arrays;
        let (a, b, out) = (a?, b?, out?);
        let count = (bytes / size_of::<f32>()) as u64;
        let [a_at, b_at, out_at] = [&a, &b, &out].map(Memory::address);
        let add = Elements { a: a_at, b: b_at, out: out_at, count, width: 0, alpha: 0.0, beta: 0.0 }
            .launch(Op::Add);
        let mut best = f64::INFINITY;
        for _ in 0..=runs {
            let began = Instant::now();
            for _ in 0..AT_ONCE {
                // SAFETY: the arrays are as long as that, and there until they were waited for.
                unsafe { self.0.launch(&add)? };
            }
            self.wait(&out)?;
            best = best.min(began.elapsed().as_secs_f64());
        }
        Ok((AT_ONCE * 3 * bytes) as f64 / best)
    }

    /// The same for so many bytes.
    pub fn upload_rate_of(&self, bytes: usize) -> Result<f64, LoadError> {
        let memory = Memory::new(&self.0, bytes)?;
        self.wait(&memory)?;
        let began = Instant::now();
        memory.write_by(0, bytes, &mut |_, _| {})?;
        self.wait(&memory)?;
        Ok(bytes as f64 / began.elapsed().as_secs_f64())
    }
}
