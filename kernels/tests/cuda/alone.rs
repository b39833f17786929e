//! The product promise that a request gives the same tokens whatever else is in the batch.

use coterie_kernels::cpu::attention::Shape;
use coterie_kernels::cuda::matmul::Format;

use super::experts::{Experts, Weights};
use super::machine::Machine;
use crate::ops::attention::{Stories, Story};
use crate::ops::cases::Inputs;
use crate::ops::random::Random;

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// A row of a product, alone, among others, and at another place of a tile; tiles of every size are compared in each. Sums are of
/// several segments, and of groups that begin in one and end in the next.
pub fn a_row_of_a_product_does_not_depend_on_the_batch(device: &Machine) {
    for (format, group) in [(Format::Int8, 64), (Format::Bf16, 1), (Format::Int4, 96)] {
        let (n, k, m) = (20, 480, 40);
        let mut random = Random::new(8);
        let x = random.bf16s(m * k);
        let scales: Vec<f32> = random.values(n * k.div_ceil(group));
        let w = match format {
            Format::Bf16 => Weights::new(format, [n, k], &random.bf16s(n * k), &[], [1, group]),
            _ => {
                let codes: Vec<u8> = (0..n * k).map(|_| random.bits() as u8).collect();
                Weights::new(format, [n, k], &codes, &scales, [1, group])
            }
        };
        let together = bits(&device.experts(&Experts { x: &x, ..Experts::one(&w, m) }).values());
        for row in [0, 1, 9, 17, 39] {
            let alone = device.experts(&Experts { x: &x[row * k..][..k], ..Experts::one(&w, 1) });
            assert!(bits(&alone.values()) == together[row * n..][..n], "{format:?}, row {row}");
        }
    }
}

/// The rows of a sequence, in one call with others and alone: in one prefill, in chunks, and token by token.
pub fn attention_does_not_depend_on_chunks_or_neighbours(device: &Machine) {
    let shape =
        Shape { q_heads: 6, kv_heads: 2, head_dim: 64, block_size: 16, scale: 0.2, window: Some(270) };
    let sizes = [(20, 30), (300, 300), (1, 290)];
    let together = Stories::new(Inputs::Bf16, shape, true, &sizes);
    let width = shape.q_heads * shape.head_dim;
    let (out, _) = device.attend(&together).expect("there is a kernel");
    let (first, Story { rows, context, .. }) = (sizes[0].0, &together.all[1]);
    let own = &bits(&out)[first * width..][..rows * width];
    for cuts in [vec![0, *rows], vec![0, 5, 256, 257, 290, *rows], (255..=260).collect()] {
        for cut in cuts.windows(2) {
            let story = &together.all[1];
            let seen = context - rows + cut[1];
            let kv = shape.kv_heads * shape.head_dim;
            let part = Stories {
                shape,
                all: vec![Story {
                    rows: cut[1] - cut[0],
                    context: seen,
                    k: story.k[..seen * kv].to_vec(),
                    v: story.v[..seen * kv].to_vec(),
                    blocks: story.blocks.clone(),
                }],
                q: together.q[(first + cut[0]) * width..(first + cut[1]) * width].to_vec(),
                sinks: together.sinks.clone(),
                blocks: together.blocks,
            };
            let (out, _) = device.attend(&part).expect("there is a kernel");
            assert!(bits(&out) == own[cut[0] * width..cut[1] * width], "rows {cut:?} alone");
        }
    }
}
