//! Who holds memory and runs kernels: a GPU by its [driver](super::driver), or the emulation of the tests.

use std::sync::Arc;

use super::launch::{Address, Launch};

/// Why a device did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Memory is used up.
    #[error("the GPU has no {bytes} bytes of memory left")]
    NoMemory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// A call failed, or a kernel that was started before it.
    #[error("{what} failed on the GPU: {why}")]
    Failed {
        /// The call.
        what: &'static str,
        /// What the device said.
        why: String,
    },
}

/// Bytes that [`Device::write_by`] has in hand where the device has no memory for them.
const SMALL_PIECE: usize = 1 << 12;

/// A device. What it is asked for, it does in that order; only [`read`](Device::read) waits for it.
pub trait Device: Send + Sync {
    /// Bytes of memory that nobody uses.
    fn free_memory(&self) -> Result<usize, DeviceError>;

    /// Whether it runs the [kernels of Hopper](super::hopper).
    fn is_hopper(&self) -> bool {
        false
    }

    /// Memory that nobody has written yet, aligned to 16 bytes at least.
    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError>;

    /// Takes memory back.
    ///
    /// # Safety
    /// It was allocated here, and nobody uses it any more.
    unsafe fn free(&self, memory: Address);

    /// Copies to the device; `from` may be changed as soon as this returns.
    ///
    /// # Safety
    /// `to` has room for it.
    unsafe fn write(&self, to: Address, from: &[u8]) -> Result<(), DeviceError>;

    /// Copies `bytes` bytes to the device, piece after piece: `fill` puts those from a number on into the memory that it is
    /// given, and while it does so for one piece, those before are on their way.
    ///
    /// # Safety
    /// `to` has room for them.
    unsafe fn write_by(
        &self,
        to: Address,
        bytes: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<(), DeviceError> {
        let mut piece = vec![0; bytes.min(SMALL_PIECE)];
        for at in (0..bytes).step_by(SMALL_PIECE) {
            let piece = &mut piece[..SMALL_PIECE.min(bytes - at)];
            fill(at, piece);
            // SAFETY: the caller's.
            unsafe { self.write(to + at as Address, piece)? };
        }
        Ok(())
    }

    /// Copies from the device, when all that it was asked for before is done.
    ///
    /// # Safety
    /// `from` has as many bytes.
    unsafe fn read(&self, from: Address, to: &mut [u8]) -> Result<(), DeviceError>;

    /// Starts a kernel.
    ///
    /// # Safety
    /// What the parameters' addresses name is as large as they say, and there until the kernel has ended.
    unsafe fn launch<P>(&self, launch: &Launch<P>) -> Result<(), DeviceError>;

    /// From here on what this thread launches is recorded and not run, until [`end_capture`](Device::end_capture). In between
    /// nothing but launches may be asked for: neither a write nor a read, and no memory. A device may refuse to record anything.
    fn begin_capture(&self) -> Result<(), DeviceError> {
        Err(no_graphs("begin_capture"))
    }

    /// The graph of what was launched since [`begin_capture`](Device::begin_capture). Nothing is recorded any more, also after
    /// an error.
    fn end_capture(&self) -> Result<GraphId, DeviceError> {
        Err(no_graphs("end_capture"))
    }

    /// Starts everything that a graph recorded, in its order, with the parameters that it had.
    ///
    /// # Safety
    /// The graph is of this device and not dropped; what the recorded addresses name is still there, and is until it has ended.
    unsafe fn replay(&self, _graph: GraphId) -> Result<(), DeviceError> {
        Err(no_graphs("replay"))
    }

    /// Forgets a graph, at the latest when it has ended.
    ///
    /// # Safety
    /// It was recorded here, and nobody replays it any more.
    unsafe fn drop_graph(&self, _graph: GraphId) {}
}

fn no_graphs(what: &'static str) -> DeviceError {
    DeviceError::Failed { what, why: "this device records nothing".to_owned() }
}

/// Names a graph on its device.
pub type GraphId = u64;

/// Launches that were recorded and are repeated at once, forgotten when this is dropped.
pub struct Graph<D: Device> {
    device: Arc<D>,
    id: GraphId,
}

impl<D: Device> Graph<D> {
    /// Records what `launches` launches; neither a graph nor a recording is left if the device refuses any of it.
    pub fn record(device: &Arc<D>, launches: impl FnOnce()) -> Result<Graph<D>, DeviceError> {
        device.begin_capture()?;
        launches();
        Ok(Graph { device: device.clone(), id: device.end_capture()? })
    }

    /// Starts all of it.
    ///
    /// # Safety
    /// What the recorded addresses name is still there, and is until it has ended.
    pub unsafe fn replay(&self) -> Result<(), DeviceError> {
        // SAFETY: the graph is there as long as this; the rest is the caller's.
        unsafe { self.device.replay(self.id) }
    }
}

impl<D: Device> Drop for Graph<D> {
    fn drop(&mut self) {
        // SAFETY: it was recorded so, and this was its only name.
        unsafe { self.device.drop_graph(self.id) };
    }
}

/// Memory of a device, given back when it is dropped. Who launches kernels keeps what they use.
pub struct Memory<D: Device> {
    device: Arc<D>,
    address: Address,
    bytes: usize,
}

impl<D: Device> Memory<D> {
    /// Memory that nobody has written yet.
    pub fn new(device: &Arc<D>, bytes: usize) -> Result<Memory<D>, DeviceError> {
        let address = device.allocate(bytes)?;
        Ok(Memory { device: device.clone(), address, bytes })
    }

    /// Where it is.
    pub fn address(&self) -> Address {
        self.address
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies `from` to the bytes from `at` on.
    ///
    /// # Panics
    /// If it does not fit.
    pub fn write(&self, at: usize, from: &[u8]) -> Result<(), DeviceError> {
        assert!(at + from.len() <= self.bytes, "what is written fits");
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: it fits.
        unsafe { self.device.write(self.address + at as Address, from) }
    }

    /// Fills the `bytes` bytes from `at` on with what [`fill`](Device::write_by) puts there.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn write_by(
        &self,
        at: usize,
        bytes: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<(), DeviceError> {
        assert!(at + bytes <= self.bytes, "what is written fits");
        // SAFETY: they fit.
        unsafe { self.device.write_by(self.address + at as Address, bytes, fill) }
    }

    /// Copies the bytes from `at` on to `to`.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn read(&self, at: usize, to: &mut [u8]) -> Result<(), DeviceError> {
        assert!(at + to.len() <= self.bytes, "what is read is there");
        if to.is_empty() {
            return Ok(());
        }
        // SAFETY: there are as many.
        unsafe { self.device.read(self.address + at as Address, to) }
    }
}

impl<D: Device> Drop for Memory<D> {
    fn drop(&mut self) {
        // SAFETY: it was allocated so.
        unsafe { self.device.free(self.address) };
    }
}
