//! Memory of the emulated device: what is read or written behind a buffer's end is a fault, not a wrong result.

use std::ffi::c_void;

use coterie_kernels::cuda::launch::Address;

/// The largest page of any kernel; buffers end where one begins that nobody may touch.
const PAGE: usize = 1 << 16;

/// A buffer of the device.
pub struct Memory<T> {
    mapped: *mut c_void,
    first: *mut T,
    length: usize,
}

impl<T: Copy> Memory<T> {
    /// A copy of `values`. It begins at a multiple of 16 bytes, so up to 15 bytes behind its end are not guarded.
    pub fn of(values: &[T]) -> Memory<T> {
        let bytes = size_of_val(values).next_multiple_of(16);
        let room = bytes.next_multiple_of(PAGE);
        let (flags, access) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: new memory; the copy fits between its beginning and the guard.
        unsafe {
            let mapped = libc::mmap(std::ptr::null_mut(), room + PAGE, access, flags, -1, 0);
            assert_ne!(mapped, libc::MAP_FAILED, "there is memory for a buffer");
            assert_eq!(libc::mprotect(mapped.byte_add(room), PAGE, libc::PROT_NONE), 0, "a page is closed");
            let first = mapped.byte_add(room - bytes).cast::<T>();
            std::ptr::copy_nonoverlapping(values.as_ptr(), first, values.len());
            Memory { mapped, first, length: values.len() }
        }
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
        let room = (self.length * size_of::<T>()).next_multiple_of(16).next_multiple_of(PAGE);
        // SAFETY: mapped so, and nobody has its address any more.
        unsafe { libc::munmap(self.mapped, room + PAGE) };
    }
}
