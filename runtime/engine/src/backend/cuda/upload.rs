//! A tensor's values on their way to the device: out of the file into memory that the device reads by itself, several threads
//! a piece, while the piece before is on its way.

use super::Cuda;
use crate::load_error::LoadError;
use crate::weights::shard::TensorView;
use coterie_kernels::cuda::device::{Device, Memory};
use coterie_kernels::cuda::launch::Address;
use coterie_kernels::cuda::random::Random;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// What a thread copies at once, bytes.
const PART: usize = 256 << 10;

impl<D: Device> Cuda<D> {
    /// Copies some bytes of a tensor to the bytes of `memory` from `to` on. Each part of them is shown to `look` on its way; of
    /// values that no file has there is nothing to see.
    pub(super) fn upload(
        &self,
        view: &TensorView,
        bytes: Range<usize>,
        memory: &Memory<D>,
        to: usize,
        look: impl Fn(&[u8]) + Sync,
    ) -> Result<(), LoadError> {
        if let Some((made, first)) = view.how_made() {
            self.make(made.seed, made.scale, first, bytes, memory.address() + to as Address);
            return Ok(());
        }
        let failed = Mutex::new(None);
        let mut fill = |at: usize, piece: &mut [u8]| {
            let parts: Vec<Mutex<&mut [u8]>> = piece.chunks_mut(PART).map(Mutex::new).collect();
            self.pool.tasks(parts.len(), |number| {
                // Nobody else has this part.
                let mut part = parts[number].lock().unwrap_or_else(PoisonError::into_inner);
                match view.read_at(bytes.start + at + number * PART, &mut part) {
                    Ok(()) => look(&part),
                    Err(error) => *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
                }
            });
        };
        memory.write_by(to, bytes.len(), &mut fill)?;
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// Makes the values of these bytes of a tensor, the first of which has the number `first`.
    fn make(&self, seed: u64, scale: f32, first: u64, bytes: Range<usize>, out: Address) {
        let first = first + bytes.start as u64 / 2;
        self.launch(&Random { out, seed, first, count: bytes.len() as u64 / 2, scale }.launch());
    }
}
