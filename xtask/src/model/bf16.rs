//! GGUF blocks to bf16. Tensors stay in memory as the 16 bits that are written.

use half::{bf16, f16};

use super::gguf::Format;

/// Values of a block of Q4_1 and of Q8_0.
const BLOCK: usize = 32;

/// Dequantises whole blocks; each value is rounded to bf16 once. Bytes beyond the last whole block are ignored:
/// the caller has read exactly [`Format::bytes`].
pub fn dequantize(format: Format, bytes: &[u8]) -> Vec<u16> {
    match format {
        Format::F32 => bytes
            .chunks_exact(4)
            .map(|value| {
                bf16::from_f32(f32::from_le_bytes([value[0], value[1], value[2], value[3]])).to_bits()
            })
            .collect(),
        Format::Q4_1 => {
            let mut out = Vec::with_capacity(bytes.len() / 20 * BLOCK);
            for block in bytes.chunks_exact(20) {
                let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
                // A block has 16 levels at most: round those, then look them up.
                let level: [u16; 16] =
                    std::array::from_fn(|level| bf16::from_f32(level as f32 * scale + minimum).to_bits());
                out.extend(block[4..].iter().map(|packed| level[usize::from(packed & 15)]));
                out.extend(block[4..].iter().map(|packed| level[usize::from(packed >> 4)]));
            }
            out
        }
        Format::Q8_0 => {
            let mut out = Vec::with_capacity(bytes.len() / 34 * BLOCK);
            for block in bytes.chunks_exact(34) {
                let scale = half_at(block, 0);
                out.extend(
                    block[2..].iter().map(|&value| bf16::from_f32(f32::from(value as i8) * scale).to_bits()),
                );
            }
            out
        }
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(bits: Vec<u16>) -> Vec<f32> {
        bits.into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect()
    }

    #[test]
    fn q4_1_puts_low_nibbles_in_the_first_half() {
        let mut block = vec![0u8; 20];
        block[0..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        block[2..4].copy_from_slice(&f16::from_f32(-2.0).to_le_bytes());
        block[4] = 0xf3;
        let values = floats(dequantize(Format::Q4_1, &block));
        assert_eq!(values.len(), 32);
        assert_eq!((values[0], values[16], values[1]), (-0.5, 5.5, -2.0));
    }

    #[test]
    fn q8_0_values_are_signed() {
        let mut block = vec![0u8; 34];
        block[0..2].copy_from_slice(&f16::from_f32(0.25).to_le_bytes());
        block[2] = -4i8 as u8;
        block[33] = 127;
        let values = floats(dequantize(Format::Q8_0, &block));
        assert_eq!((values[0], values[1], values[31]), (-1.0, 0.0, 31.75));
    }

    #[test]
    fn f32_rounds_to_nearest_even() {
        let ties = [0x3f80_8000u32, 0x3f81_8000, 0x3f81_8001, 0xbf80_7fff];
        let bytes: Vec<u8> = ties.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        assert_eq!(dequantize(Format::F32, &bytes), [0x3f80, 0x3f82, 0x3f82, 0xbf80]);
    }
}
