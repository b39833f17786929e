//! The device's memory that a step uses: taken when it is first needed, and kept for the next.

use bytemuck::Pod;
use coterie_kernels::cuda::device::{Device, DeviceError, Memory};
use coterie_kernels::cuda::launch::Address;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Buffers come in powers of two from this on, bytes.
const SMALLEST: usize = 512;

/// What a step asks for cannot fail, but if the GPU breaks or memory ends that [`check`](super::room::check) had counted.
/// There is nothing to go on with then.
pub(super) fn sure<T>(result: Result<T, DeviceError>) -> T {
    result.expect("the GPU does what it is asked for")
}

/// Memory of dropped buffers by size. A device does one thing after the other, so a buffer may be given to the next
/// kernel while the one before still runs.
pub(super) struct Spare<D: Device> {
    device: Arc<D>,
    by_size: RefCell<BTreeMap<usize, Vec<Memory<D>>>>,
}

impl<D: Device> Spare<D> {
    pub(super) fn new(device: Arc<D>) -> Rc<Spare<D>> {
        Rc::new(Spare { device, by_size: RefCell::default() })
    }

    /// A buffer of at least so many bytes; what is in it is anything.
    pub(super) fn take(self: &Rc<Self>, bytes: usize) -> Buffer<D> {
        let size = bytes.next_power_of_two().max(SMALLEST);
        let kept = self.by_size.borrow_mut().get_mut(&size).and_then(Vec::pop);
        let memory = kept.unwrap_or_else(|| sure(Memory::new(&self.device, size)));
        Buffer { memory: Some(memory), spare: self.clone() }
    }

    /// A buffer with these values.
    pub(super) fn with<T: Pod>(self: &Rc<Self>, values: &[T]) -> Buffer<D> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let buffer = self.take(bytes.len());
        sure(buffer.memory().write(0, bytes));
        buffer
    }
}

/// Values on their way to the device, list after list.
#[derive(Default)]
pub(super) struct Lists<T>(pub(super) Vec<T>);

impl<T> Lists<T> {
    /// Where the list will begin, bytes from the beginning of all.
    pub(super) fn push(&mut self, list: impl IntoIterator<Item = T>) -> Address {
        let at = size_of_val(&self.0[..]) as Address;
        self.0.extend(list);
        at
    }
}

/// Memory that goes back when it is dropped.
pub(super) struct Buffer<D: Device> {
    memory: Option<Memory<D>>,
    spare: Rc<Spare<D>>,
}

impl<D: Device> Buffer<D> {
    pub(super) fn address(&self) -> Address {
        self.memory().address()
    }

    /// As many values from its beginning, when all kernels before have ended.
    pub(super) fn read<T: Pod>(&self, length: usize) -> Vec<T> {
        let mut values = vec![T::zeroed(); length];
        sure(self.memory().read(0, bytemuck::cast_slice_mut(&mut values)));
        values
    }

    pub(super) fn memory(&self) -> &Memory<D> {
        self.memory.as_ref().expect("a buffer has memory until it is dropped")
    }
}

impl<D: Device> Drop for Buffer<D> {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.spare.by_size.borrow_mut().entry(memory.bytes()).or_default().push(memory);
        }
    }
}

/// Activations `[rows, width]`.
pub struct CudaTensor<D: Device> {
    memory: Buffer<D>,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// Its values, once somebody here asked for them.
    seen: OnceCell<Vec<f32>>,
    /// Of each row the largest value's column, and the value, once somebody asked for one.
    best: OnceCell<Vec<(u32, f32)>>,
}

impl<D: Device> CudaTensor<D> {
    pub(super) fn new(memory: Buffer<D>, rows: usize, width: usize) -> Self {
        CudaTensor { memory, rows, width, seen: OnceCell::new(), best: OnceCell::new() }
    }

    /// Where it is, to be read.
    pub(super) fn address(&self) -> Address {
        self.memory.address()
    }

    /// Where it is, to be changed.
    pub(super) fn address_mut(&mut self) -> Address {
        self.seen.take();
        self.best.take();
        self.memory.address()
    }

    /// Its values in this process.
    pub(super) fn values(&self) -> &[f32] {
        self.seen.get_or_init(|| self.memory.read(self.rows * self.width))
    }

    /// Of each row the largest value's column, and the value, as `find` finds them.
    pub(super) fn best(&self, find: impl FnOnce() -> Vec<(u32, f32)>) -> &[(u32, f32)] {
        self.best.get_or_init(find)
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values()[row * self.width..][..self.width]
    }
}
