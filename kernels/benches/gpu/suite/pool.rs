//! Weights and caches: memory that is too large to be made on the host, of bytes that the host knows all the same. They
//! repeat after some prime number of 16 bytes, so that no two matrices are alike.

use std::sync::Arc;

use coterie_kernels::cuda::device::{DeviceError, Memory};
use coterie_kernels::cuda::launch::Address;
use coterie_kernels::cuda::matmul::Format;
use coterie_kernels::cuda::timed::Timed;
use half::bf16;

use super::random::Random;

/// Memory of the device that repeats what the host has.
pub struct Pool<D: Timed> {
    device: Arc<D>,
    memory: Memory<D>,
    period: Vec<u8>,
}

impl<D: Timed> Pool<D> {
    /// Memory for `bytes` bytes, whose contents repeat after about `period` of them.
    pub fn new(device: &Arc<D>, bytes: usize, period: usize) -> Result<Pool<D>, DeviceError> {
        let period = vec![0; 16 * prime((period / 16).max(2))];
        Ok(Pool { device: device.clone(), memory: Memory::new(device, bytes)?, period })
    }

    pub fn address(&self) -> Address {
        self.memory.address()
    }

    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Fills it with codes of a format; bf16 about normal with this deviation.
    pub fn fill(&mut self, random: &mut Random, format: Format, deviation: f32) -> Result<(), DeviceError> {
        match format {
            Format::Bf16 => {
                for two in self.period.chunks_exact_mut(2) {
                    two.copy_from_slice(&bf16::from_f32(random.value() * deviation).to_le_bytes());
                }
            }
            _ => {
                for eight in self.period.chunks_exact_mut(8) {
                    eight.copy_from_slice(&random.bits().to_le_bytes());
                }
            }
        }
        if format == Format::Fp8 {
            // Exponents below 8: no NaN, and numbers of about one size.
            self.period.iter_mut().for_each(|code| *code &= 0xbf);
        }
        self.repeat()
    }

    /// Fills it with scales: of a format that has exponents these, else f32 about `scale`.
    pub fn fill_scales(
        &mut self,
        random: &mut Random,
        format: Format,
        scale: f32,
    ) -> Result<(), DeviceError> {
        if format == Format::Mxfp4 {
            // Of the scale's power of two and the three below it.
            let most = 127 + scale.log2() as i32;
            self.period.iter_mut().for_each(|code| *code = (most - (random.bits() % 4) as i32) as u8);
        } else {
            for four in self.period.chunks_exact_mut(4) {
                four.copy_from_slice(&(scale * (0.5 + random.share())).to_le_bytes());
            }
        }
        self.repeat()
    }

    /// Writes the period once, and then copies what is there behind itself.
    fn repeat(&self) -> Result<(), DeviceError> {
        let (bytes, base) = (self.memory.bytes(), self.memory.address());
        let mut done = self.period.len().min(bytes);
        self.memory.write(0, &self.period[..done])?;
        while done < bytes {
            let length = done.min(bytes - done);
            // SAFETY: both are parts of the memory, and apart.
            unsafe { self.device.copy(base, base + done as Address, length)? };
            done += length;
        }
        Ok(())
    }

    /// The byte at a place.
    pub fn byte(&self, at: usize) -> u8 {
        self.period[at % self.period.len()]
    }

    fn bytes_at<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|i| self.byte(at + i))
    }

    pub fn f32(&self, at: usize) -> f64 {
        f32::from_le_bytes(self.bytes_at(at)).into()
    }

    pub fn bf16(&self, at: usize) -> f64 {
        bf16::from_le_bytes(self.bytes_at(at)).to_f64()
    }
}

/// The largest prime number up to `most`.
fn prime(most: usize) -> usize {
    let is_prime = |n: &usize| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (2..=most).rev().find(is_prime).unwrap_or(2)
}

/// Fills memory with NaN of every format that has one, so that what no kernel writes is seen.
pub fn poison<D: Timed>(device: &D, memory: &Memory<D>) -> Result<(), DeviceError> {
    let (bytes, base) = (memory.bytes(), memory.address());
    let mut done = bytes.min(1 << 16);
    memory.write(0, &vec![0xff; done])?;
    while done < bytes {
        let length = done.min(bytes - done);
        // SAFETY: both are parts of the memory, and apart.
        unsafe { device.copy(base, base + done as Address, length)? };
        done += length;
    }
    Ok(())
}
