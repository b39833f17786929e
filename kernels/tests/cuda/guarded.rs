//! Memory of the emulated device: what is read or written behind a buffer's end is a fault, not a wrong result.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use coterie_kernels::cuda::launch::Address;

/// The largest page of any kernel; buffers end where one begins that nobody may touch.
const PAGE: usize = 1 << 16;

/// By the address of a buffer: what is to be unmapped, and how much.
static MAPPED: Mutex<BTreeMap<Address, (usize, usize)>> = Mutex::new(BTreeMap::new());

/// As many bytes, guarded but for up to 15 behind their end, as they begin at a multiple of 16. Numbers that nobody has
/// written are NaN in any format.
pub fn allocate(bytes: usize) -> Address {
    let bytes = bytes.next_multiple_of(16);
    let room = bytes.next_multiple_of(PAGE);
    let (flags, access) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: new memory, of which the last page is closed.
    let (mapped, first) = unsafe {
        let mapped = libc::mmap(std::ptr::null_mut(), room + PAGE, access, flags, -1, 0);
        assert_ne!(mapped, libc::MAP_FAILED, "there is memory for a buffer");
        assert_eq!(libc::mprotect(mapped.byte_add(room), PAGE, libc::PROT_NONE), 0, "a page is closed");
        let first = mapped.byte_add(room - bytes);
        first.cast::<u8>().write_bytes(0xff, bytes);
        (mapped, first)
    };
    let mut all = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
    all.insert(first.expose_provenance() as Address, (mapped.expose_provenance(), room + PAGE));
    first.addr() as Address
}

/// A buffer's addresses.
///
/// # Panics
/// If it is not one's beginning.
pub fn range(address: Address) -> Range<Address> {
    let mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner).get(&address).copied();
    let (mapped, length) = mapped.expect("it was allocated here, and not freed");
    address..(mapped + length - PAGE) as Address
}

/// # Safety
/// Nobody has the address any more.
pub unsafe fn free(address: Address) {
    let mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
    let (mapped, length) = mapped.expect("it was allocated here, and freed once");
    // SAFETY: mapped so.
    unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut::<c_void>(mapped), length) };
}
