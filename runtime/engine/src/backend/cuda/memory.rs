//! The device's memory that a step uses: taken when it is first needed, and kept for the next.

use bytemuck::Pod;
use coterie_kernels::cuda::device::{Device, DeviceError, Memory};
use coterie_kernels::cuda::launch::Address;
use std::cell::{Cell, OnceCell, RefCell};
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

/// What becomes of launches, and whom memory is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// They run.
    Run,
    /// Nothing runs: the graphs' memory grows to what a recording will take, and lists are brought to where it will find them.
    Rehearse,
    /// They are recorded. Nothing else is asked of the device.
    Record,
}

/// Memory by its size.
type Pool<D> = BTreeMap<usize, Vec<Rc<Memory<D>>>>;

/// Memory of dropped buffers. A device does one thing after the other, so a buffer may be given to the next kernel while the
/// one before still runs.
///
/// What a graph has recorded it uses again at every replay. So graphs have memory of their own, which nobody else is given:
/// one for all of them, as one runs at a time and nothing in it is needed when the next one starts.
pub(super) struct Spare<D: Device> {
    device: Arc<D>,
    mode: Cell<Mode>,
    of_steps: RefCell<Pool<D>>,
    of_graphs: RefCell<Pool<D>>,
    /// Lists that graphs read, which are the same for every replay.
    lists: RefCell<BTreeMap<Vec<u8>, Rc<Memory<D>>>>,
    /// Why what is rehearsed or recorded can be no graph.
    refused: RefCell<Option<String>>,
}

impl<D: Device> Spare<D> {
    pub(super) fn new(device: Arc<D>) -> Rc<Spare<D>> {
        Rc::new(Spare {
            device,
            mode: Cell::new(Mode::Run),
            of_steps: RefCell::default(),
            of_graphs: RefCell::default(),
            lists: RefCell::default(),
            refused: RefCell::default(),
        })
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode.get()
    }

    /// Does `work` in another mode; the first reason that was given against it, if there was one.
    pub(super) fn in_mode<T>(&self, mode: Mode, work: impl FnOnce() -> T) -> Result<T, String> {
        self.mode.set(mode);
        let done = work();
        self.mode.set(Mode::Run);
        match self.refused.take() {
            None => Ok(done),
            Some(why) => Err(why),
        }
    }

    /// Notes that what is going on can be no graph.
    pub(super) fn refuse(&self, why: impl ToString) {
        self.refused.borrow_mut().get_or_insert_with(|| why.to_string());
    }

    fn pool(&self, graphs: bool) -> &RefCell<Pool<D>> {
        if graphs { &self.of_graphs } else { &self.of_steps }
    }

    /// A buffer of at least so many bytes; what is in it is anything.
    pub(super) fn take(self: &Rc<Self>, bytes: usize) -> Buffer<D> {
        let size = bytes.next_power_of_two().max(SMALLEST);
        let graphs = self.mode() != Mode::Run;
        let kept = self.pool(graphs).borrow_mut().get_mut(&size).and_then(Vec::pop);
        let memory = kept.unwrap_or_else(|| Rc::new(sure(Memory::new(&self.device, size))));
        Buffer { memory, back: Some((self.clone(), graphs)) }
    }

    /// A buffer with these values. For a graph they are the same at every replay.
    pub(super) fn with<T: Pod>(self: &Rc<Self>, values: &[T]) -> Buffer<D> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if self.mode() == Mode::Run {
            let buffer = self.take(bytes.len());
            sure(buffer.memory.write(0, bytes));
            return buffer;
        }
        let mut lists = self.lists.borrow_mut();
        if !lists.contains_key(bytes) {
            lists.insert(bytes.to_vec(), Rc::new(self.lasting(values)));
        }
        Buffer { memory: lists[bytes].clone(), back: None }
    }

    /// Memory of these values, for as long as it is kept.
    pub(super) fn lasting<T: Pod>(&self, values: &[T]) -> Memory<D> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let memory = sure(Memory::new(&self.device, bytes.len()));
        sure(memory.write(0, bytes));
        memory
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

/// Memory that goes back when it is dropped, or is lent.
pub(super) struct Buffer<D: Device> {
    memory: Rc<Memory<D>>,
    /// Where to, and whether it is of the graphs.
    back: Option<(Rc<Spare<D>>, bool)>,
}

impl<D: Device> Buffer<D> {
    pub(super) fn address(&self) -> Address {
        self.memory.address()
    }

    /// Of this memory, which goes nowhere else.
    pub(super) fn alone(memory: Memory<D>) -> Buffer<D> {
        Buffer { memory: Rc::new(memory), back: None }
    }

    /// The same memory, which still goes back when this buffer is dropped: for results of a graph, which are read before the
    /// next one starts.
    pub(super) fn lent(&self) -> Buffer<D> {
        Buffer { memory: self.memory.clone(), back: None }
    }

    /// Puts values to its beginning.
    pub(super) fn write<T: Pod>(&self, values: &[T]) {
        sure(self.memory.write(0, bytemuck::cast_slice(values)));
    }

    /// As many values from number `first` on, when all kernels before have ended. In what is to become a graph there are none,
    /// as nothing has run.
    pub(super) fn read_from<T: Pod>(&self, first: usize, length: usize) -> Vec<T> {
        let mut values = vec![T::zeroed(); length];
        match &self.back {
            Some((spare, _)) if spare.mode() != Mode::Run => {
                spare.refuse("a step reads what it has computed")
            }
            _ => sure(self.memory.read(first * size_of::<T>(), bytemuck::cast_slice_mut(&mut values))),
        }
        values
    }

    /// The same from its beginning.
    pub(super) fn read<T: Pod>(&self, length: usize) -> Vec<T> {
        self.read_from(0, length)
    }

    pub(super) fn memory(&self) -> &Memory<D> {
        &self.memory
    }
}

impl<D: Device> Drop for Buffer<D> {
    fn drop(&mut self) {
        if let Some((spare, graphs)) = &self.back {
            let mut pool = spare.pool(*graphs).borrow_mut();
            pool.entry(self.memory.bytes()).or_default().push(self.memory.clone());
        }
    }
}

/// Activations `[rows, width]`.
pub struct CudaTensor<D: Device> {
    memory: Buffer<D>,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// Its rows' values, once somebody here asked for them.
    seen: OnceCell<Vec<OnceCell<Vec<f32>>>>,
    /// Of each row the largest value's column, and the value, once somebody asked for one.
    best: OnceCell<Vec<(u32, f32)>>,
    /// The tokens that were drawn, if any.
    draws: Option<Draws<D>>,
}

/// A token for each row of logits.
struct Draws<D: Device> {
    memory: Buffer<D>,
    seen: OnceCell<Vec<u32>>,
}

impl<D: Device> CudaTensor<D> {
    pub(super) fn new(memory: Buffer<D>, rows: usize, width: usize) -> Self {
        CudaTensor { memory, rows, width, seen: OnceCell::new(), best: OnceCell::new(), draws: None }
    }

    /// The same values at the same place, where they are [lent](Buffer::lent).
    pub(super) fn lent(&self) -> Self {
        let mut lent = CudaTensor::new(self.memory.lent(), self.rows, self.width);
        if let Some(draws) = &self.draws {
            lent.drew(draws.memory.lent());
        }
        lent
    }

    /// Where it is, to be read.
    pub(super) fn address(&self) -> Address {
        self.memory.address()
    }

    /// Where it is, to be changed.
    pub(super) fn address_mut(&mut self) -> Address {
        self.seen.take();
        self.best.take();
        self.draws = None;
        self.memory.address()
    }

    /// Its values in this process.
    pub(super) fn values(&self) -> Vec<f32> {
        self.memory.read(self.rows * self.width)
    }

    /// Of each row the largest value's column, and the value, as `find` finds them.
    pub(super) fn best(&self, find: impl FnOnce() -> Vec<(u32, f32)>) -> &[(u32, f32)] {
        self.best.get_or_init(find)
    }

    /// A row's values in this process. Only this row is copied: of a step's rows, few are those that the device cannot draw from.
    pub(super) fn row(&self, row: usize) -> &[f32] {
        let seen = self.seen.get_or_init(|| vec![OnceCell::new(); self.rows]);
        seen[row].get_or_init(|| self.memory.read_from(row * self.width, self.width))
    }

    /// Its rows' tokens are in `memory`.
    pub(super) fn drew(&mut self, memory: Buffer<D>) {
        self.draws = Some(Draws { memory, seen: OnceCell::new() });
    }

    /// The token that was drawn for a row, if one was.
    pub(super) fn drawn(&self, row: usize) -> Option<u32> {
        let draws = self.draws.as_ref()?;
        Some(draws.seen.get_or_init(|| draws.memory.read(self.rows))[row])
    }
}
