//! Values in the device's memory.

use std::marker::PhantomData;

use coterie_kernels::cuda::device::Device;
use coterie_kernels::cuda::launch::Address;

use super::guarded;
use super::machine;

/// A buffer of the GPU that was opened, if any, or else of the emulation.
pub struct Memory<T> {
    address: Address,
    length: usize,
    of: PhantomData<T>,
}

impl<T: Copy> Memory<T> {
    /// A copy of `values`.
    pub fn of(values: &[T]) -> Memory<T> {
        let bytes = size_of_val(values);
        // SAFETY: numbers, or structs of them without padding.
        let from = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), bytes) };
        let address = match machine::opened() {
            Some(gpu) => {
                // Whole words, as a kernel reads the one that a byte is in.
                let address = gpu.allocate(bytes.next_multiple_of(16)).expect("there is memory for a buffer");
                // SAFETY: new memory of as many bytes.
                unsafe { gpu.write(address, from) }.expect("a buffer can be written");
                address
            }
            None => {
                let address = guarded::allocate(bytes);
                let to = std::ptr::with_exposed_provenance_mut::<u8>(address as usize);
                // SAFETY: the same.
                unsafe { to.copy_from_nonoverlapping(from.as_ptr(), bytes) };
                address
            }
        };
        Memory { address, length: values.len(), of: PhantomData }
    }

    /// Where it is.
    pub fn address(&self) -> Address {
        self.address
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What is in it.
    pub fn values(&self) -> Vec<T> {
        let mut values: Vec<T> = Vec::with_capacity(self.length);
        // SAFETY: as many values lie there, and every T that kernels write is one; the emulation's have ended when they
        // return.
        unsafe {
            let to = values.as_mut_ptr();
            match machine::opened() {
                Some(gpu) => {
                    let to = std::slice::from_raw_parts_mut(to.cast::<u8>(), self.length * size_of::<T>());
                    gpu.read(self.address, to).expect("a buffer can be read");
                }
                None => {
                    let from = std::ptr::with_exposed_provenance::<T>(self.address as usize);
                    to.copy_from_nonoverlapping(from, self.length);
                }
            }
            values.set_len(self.length);
        }
        values
    }
}

impl<T> Drop for Memory<T> {
    fn drop(&mut self) {
        // SAFETY: allocated so, and nobody has its address any more.
        unsafe {
            match machine::opened() {
                Some(gpu) => gpu.free(self.address),
                None => guarded::free(self.address),
            }
        }
    }
}
