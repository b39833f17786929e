//! Memory in large pieces from the driver, handed out in small ones: the driver rounds each of its own up to 2 MB, so that an
//! expert's matrix of 3 MB would take 4, and a model of thousands of them a third more than it has.

use std::collections::BTreeMap;

use crate::cuda::launch::Address;

/// Bytes of a slab.
const SLAB: usize = 256 << 20;
/// What is larger than this has a slab of its own.
const LARGE: usize = SLAB / 4;
/// What the driver rounds up to, bytes.
const ROUNDED: usize = 2 << 20;
/// Pieces begin at multiples of this, bytes.
const ALIGNED: usize = 512;

/// Slabs, and what is free in them. What is given back may be handed out at once: a stream does one thing after the other.
#[derive(Default)]
pub(super) struct Slabs {
    /// Bytes of each slab.
    slabs: BTreeMap<Address, usize>,
    /// Bytes of each free range; those that touch in one slab are one.
    free: BTreeMap<Address, usize>,
    /// Bytes of each piece that was handed out.
    taken: BTreeMap<Address, usize>,
    /// Each piece is a slab, and none is larger than its piece.
    of_one_piece: bool,
}

impl Slabs {
    /// Slabs that are never shared.
    pub(super) fn of_one_piece() -> Slabs {
        Slabs { of_one_piece: true, ..Slabs::default() }
    }

    /// At least so many bytes. `allocate` asks the driver; where it refuses a whole slab, it is asked for what is needed.
    pub(super) fn take<E>(
        &mut self,
        bytes: usize,
        mut allocate: impl FnMut(usize) -> Result<Address, E>,
    ) -> Result<Address, E> {
        let bytes = if self.of_one_piece { bytes.max(1) } else { bytes.max(1).next_multiple_of(ALIGNED) };
        let found = self.free.iter().find(|(_, free)| **free >= bytes);
        let (address, room) = match found {
            Some((address, room)) => (*address, *room),
            None => {
                let least = if self.of_one_piece { bytes } else { bytes.next_multiple_of(ROUNDED) };
                let (slab, size) =
                    match if bytes > LARGE || self.of_one_piece { None } else { allocate(SLAB).ok() } {
                        Some(slab) => (slab, SLAB),
                        None => (allocate(least)?, least),
                    };
                self.slabs.insert(slab, size);
                (slab, size)
            }
        };
        self.free.remove(&address);
        if room > bytes {
            self.free.insert(address + bytes as Address, room - bytes);
        }
        self.taken.insert(address, bytes);
        Ok(address)
    }

    /// Takes a piece back. Gives the slab that is to go back to the driver, if nothing of it is in use any more.
    pub(super) fn give_back(&mut self, address: Address) -> Option<Address> {
        let bytes = self.taken.remove(&address)?;
        let (&slab, &size) = self.slabs.range(..=address).next_back()?;
        let (mut begin, mut end) = (address, address + bytes as Address);
        if let Some((&before, &room)) = self.free.range(slab..address).next_back()
            && before + room as Address == begin
        {
            self.free.remove(&before);
            begin = before;
        }
        if end < slab + size as Address
            && let Some(room) = self.free.remove(&end)
        {
            end += room as Address;
        }
        if end - begin == size as Address {
            self.slabs.remove(&slab);
            return Some(slab);
        }
        self.free.insert(begin, (end - begin) as usize);
        None
    }

    /// Bytes that are free in slabs.
    pub(super) fn free_bytes(&self) -> usize {
        self.free.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A driver with so much memory, which gives slabs one behind the other.
    struct Given {
        left: usize,
        at: Address,
    }

    impl Given {
        fn allocate(&mut self, bytes: usize) -> Result<Address, usize> {
            self.left = self.left.checked_sub(bytes).ok_or(bytes)?;
            self.at += bytes as Address;
            Ok(self.at - bytes as Address)
        }
    }

    #[test]
    fn pieces_do_not_meet_and_all_of_it_comes_back() {
        let (mut slabs, mut given) = (Slabs::default(), Given { left: 1 << 40, at: 1 << 30 });
        let mut state = 7u64;
        let mut random = |limit: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % limit
        };
        let mut held: Vec<(Address, usize)> = Vec::new();
        let mut returned = 0;
        for _ in 0..3000 {
            if held.len() > random(60) {
                let (address, _) = held.swap_remove(random(held.len()));
                returned += usize::from(slabs.give_back(address).is_some());
                continue;
            }
            let bytes = if random(20) == 0 { random(300 << 20) } else { random(12 << 20) };
            let address = slabs.take(bytes, |bytes| given.allocate(bytes)).unwrap();
            assert!(address.is_multiple_of(ALIGNED as Address));
            let apart = |(other, size): &(Address, usize)| {
                address + bytes as Address <= *other || other + *size as Address <= address
            };
            assert!(held.iter().all(apart), "{bytes} bytes at {address}");
            held.push((address, bytes));
        }
        for (address, _) in held {
            returned += usize::from(slabs.give_back(address).is_some());
        }
        assert_eq!((slabs.slabs.len(), slabs.free_bytes()), (0, 0));
        assert!(returned > 3);
    }

    #[test]
    fn many_matrices_waste_little() {
        let (mut slabs, mut given) = (Slabs::default(), Given { left: 80 << 30, at: 0 });
        let matrix = 3 * (1 << 20) + 256;
        (0..18_432).for_each(|_| _ = slabs.take(matrix, |bytes| given.allocate(bytes)).unwrap());
        assert!((given.at as usize) < 18_432 * matrix * 102 / 100, "{}", given.at);
    }

    #[test]
    fn pieces_of_their_own_end_where_they_end() {
        let (mut slabs, mut given) = (Slabs::of_one_piece(), Given { left: 10 << 20, at: 512 });
        let [one, other] = [(); 2].map(|()| slabs.take(7, |bytes| given.allocate(bytes)).unwrap());
        assert_eq!((one, other, given.left), (512, 519, (10 << 20) - 14));
        assert_eq!((slabs.give_back(one), slabs.give_back(other)), (Some(one), Some(other)));
    }

    #[test]
    fn where_no_slab_is_left_a_piece_may_still_be() {
        let (mut slabs, mut given) = (Slabs::default(), Given { left: 10 << 20, at: 0 });
        assert!(slabs.take(3 << 20, |bytes| given.allocate(bytes)).is_ok());
        assert_eq!(slabs.take(7 << 20, |bytes| given.allocate(bytes)), Err(8 << 20));
        assert!(slabs.take(1 << 20, |bytes| given.allocate(bytes)).is_ok(), "what is left of the first");
        assert_eq!(given.left, 6 << 20);
    }
}
