//! Memory of the device. Of the emulated one, what is read or written behind a buffer's end is a fault, not a wrong
//! result.

use std::ffi::c_void;

use coterie_kernels::cuda::launch::Address;

use super::gpu::Gpu;

/// The largest page of any kernel; buffers end where one begins that nobody may touch.
const PAGE: usize = 1 << 16;

/// A buffer of the device.
pub struct Memory<T> {
    mapped: *mut c_void,
    first: *mut T,
    length: usize,
}

impl<T: Copy> Memory<T> {
    /// A copy of `values`. Where there is a GPU, in memory that it shares with us; else guarded, but for up to 15 bytes
    /// behind its end, as it begins at a multiple of 16.
    pub fn of(values: &[T]) -> Memory<T> {
        let bytes = size_of_val(values).next_multiple_of(16);
        let (mapped, first) = match Gpu::opened() {
            Some(gpu) => {
                let shared = gpu.allocate(bytes.max(16)).expect("there is memory for a buffer");
                (shared, shared)
            }
            None => guarded(bytes),
        };
        let first = first.cast::<T>();
        // SAFETY: new memory of as many bytes.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), first, values.len()) };
        Memory { mapped, first, length: values.len() }
    }

    /// Where it is.
    pub fn address(&self) -> Address {
        self.first as Address
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What is in it.
    pub fn values(&self) -> Vec<T> {
        // SAFETY: kernels have finished when they return, and every T that they write is one.
        unsafe { std::slice::from_raw_parts(self.first, self.length) }.to_vec()
    }
}

impl<T> Drop for Memory<T> {
    fn drop(&mut self) {
        // SAFETY: allocated or mapped so, and nobody has its address any more.
        unsafe {
            match Gpu::opened() {
                Some(gpu) => gpu.free(self.mapped).expect("what was allocated is given back"),
                None => {
                    let room = (self.length * size_of::<T>()).next_multiple_of(16).next_multiple_of(PAGE);
                    libc::munmap(self.mapped, room + PAGE);
                }
            }
        }
    }
}

/// What is to be unmapped, and where as many bytes begin that end where a closed page begins.
fn guarded(bytes: usize) -> (*mut c_void, *mut c_void) {
    let room = bytes.next_multiple_of(PAGE);
    let (flags, access) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: new memory, of which the last page is closed.
    unsafe {
        let mapped = libc::mmap(std::ptr::null_mut(), room + PAGE, access, flags, -1, 0);
        assert_ne!(mapped, libc::MAP_FAILED, "there is memory for a buffer");
        assert_eq!(libc::mprotect(mapped.byte_add(room), PAGE, libc::PROT_NONE), 0, "a page is closed");
        (mapped, mapped.byte_add(room - bytes))
    }
}
