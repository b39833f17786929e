//! The product promise that a request gives the same tokens whatever else is in the batch.

use coterie_kernels::cpu::attention::Shape;
use coterie_kernels::cuda::matmul::Format;

use super::checks::error;
use super::experts::Experts;
use super::layer::{Known, known};
use super::machine::Machine;
use crate::ops::attention::{Stories, Story};
use crate::ops::cases::Inputs;
use crate::ops::random::Random;

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// A row of a product, alone, among others, and at another place of a tile; tiles of every size are compared in each. Of k
/// there are less than eight parts, parts that end within a step, and parts that take every slot of a block more than once.
pub fn a_row_of_a_product_does_not_depend_on_the_batch(device: &Machine) {
    let (n, m) = (20, 40);
    for (format, [scale_rows, group], k) in [
        (Format::Int8, [1, 64], 160),
        (Format::Bf16, [1, 1120], 1120),
        (Format::Bf16, [1, 4160], 4160),
        (Format::Int8, [1, 64], 1120),
        (Format::Int4, [1, 96], 2112),
        (Format::Int4, [1, 128], 8256),
        (Format::Fp8, [16, 128], 4160),
        (Format::Mxfp4, [1, 32], 1120),
    ] {
        let mut random = Random::new(8);
        let x = random.bf16s(m * k);
        let Known { weights, values } = known(&mut random, format, n, k, [scale_rows, group]);
        let together = device.experts(&Experts { x: &x, ..Experts::one(&weights, m) }).values();
        let exact = (0..m * n).map(|i| {
            let (x, w) = (&x[i / n * k..][..k], &values[i % n * k..][..k]);
            x.iter().zip(w).map(|(x, w)| x.to_f64() * w).sum()
        });
        let error = error(&together, &exact.collect::<Vec<f64>>());
        assert!(error < 1e-6, "{format:?} {k}: error {error:.2e}");
        for row in [0, 1, 9, 39] {
            let alone = device.experts(&Experts { x: &x[row * k..][..k], ..Experts::one(&weights, 1) });
            assert!(bits(&alone.values()) == bits(&together)[row * n..][..n], "{format:?} {k}: row {row}");
        }
    }
}

/// More chunks of keys than are folded at once after they were spread over blocks.
pub fn attention_over_many_keys_has_the_same_bits_in_every_form(device: &Machine) {
    let shape = Shape { q_heads: 1, kv_heads: 1, head_dim: 64, block_size: 16, scale: 0.2, window: None };
    let long = Stories::new(Inputs::Bf16, shape, true, &[(1, 33_000)]);
    assert!(device.attend(&long).is_some(), "there is a kernel");
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
