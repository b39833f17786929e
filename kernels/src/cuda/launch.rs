//! What is handed to a device to run a kernel.

/// Memory of the device. 0 stands for none.
pub type Address = u64;

/// Stands for a place of which there is none, where something would be kept of a row: it is not.
pub const NO_SLOT: u32 = u32::MAX;

/// One run of a kernel.
#[derive(Clone, Debug)]
pub struct Launch<P> {
    /// Its name.
    pub kernel: &'static str,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block, whole warps.
    pub block: u32,
    /// Bytes of a block's shared memory.
    pub shared: usize,
    /// The struct that the kernel takes.
    pub parameters: P,
}
