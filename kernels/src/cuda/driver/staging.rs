//! The way of bytes to the GPU: two halves of memory that the GPU reads by itself, filled by turns.

use cudarc::driver::{DriverError, result, sys};

use crate::cuda::launch::Address;

/// Bytes of a half.
const HALF: usize = 32 << 20;

/// Bytes that are sent at once: while the GPU reads them, the next are filled in.
const PIECE: usize = 4 << 20;

/// Memory that stays where it is.
pub(super) struct Staging {
    memory: *mut u8,
    /// When the GPU has read a half.
    read: [sys::CUevent; 2],
    half: usize,
    /// Bytes of the half that are in use.
    used: usize,
}

impl Staging {
    /// # Safety
    /// There is a current context.
    pub(super) unsafe fn new() -> Result<Staging, DriverError> {
        // SAFETY: the caller's.
        let memory = unsafe { result::malloc_host(2 * HALF, 0)? }.cast();
        let event = || result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        Ok(Staging { memory, read: [event()?, event()?], half: 0, used: 0 })
    }

    /// Copies `bytes` bytes in the order of the stream; `fill` puts those from a number on where it is told to.
    ///
    /// # Safety
    /// `to` has room for them, and the stream's context is current.
    pub(super) unsafe fn write(
        &mut self,
        to: Address,
        bytes: usize,
        stream: sys::CUstream,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<(), DriverError> {
        let mut at = 0;
        while at < bytes {
            if self.used == HALF {
                // SAFETY: the events were made with the memory. One that was never recorded is not waited for.
                unsafe {
                    result::event::record(self.read[self.half], stream)?;
                    self.half = 1 - self.half;
                    result::event::synchronize(self.read[self.half])?;
                }
                self.used = 0;
            }
            let length = (bytes - at).min(HALF - self.used).min(PIECE);
            // SAFETY: the half has room for the piece, and the GPU has read what was there before.
            unsafe {
                let place = self.memory.add(self.half * HALF + self.used);
                let place = std::slice::from_raw_parts_mut(place, length);
                fill(at, place);
                result::memcpy_htod_async(to + at as Address, place, stream)?;
            }
            self.used += length;
            at += length;
        }
        Ok(())
    }
}
