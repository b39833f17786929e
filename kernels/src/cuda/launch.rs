//! What is handed to a device to run a kernel.

/// Memory of the device. 0 stands for none.
pub type Address = u64;

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
