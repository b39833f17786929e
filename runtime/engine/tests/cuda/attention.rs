//! Attention to long contexts: a decode spreads its keys over blocks, beside prompts that do not.

use crate::{emulated, tiny_mixtral};
use coterie_api::launch::Activations;
use coterie_engine::backend::{AttentionShape, Backend, LatentShape};
use coterie_engine::batch::Batch;
use coterie_engine::block_pool::BLOCK_SIZE;
use half::bf16;
use std::ops::Range;

/// Tokens of each sequence, and how many of them come last, in a step of their own: a prompt, and two that decode.
const SEQUENCES: [[usize; 2]; 3] = [[40, 40], [600, 1], [300, 9]];
const BLOCKS: usize = 64;

/// Rows of `width` values for every token of every sequence.
struct Values {
    width: usize,
    of: Vec<Vec<bf16>>,
}

impl Values {
    fn new(width: usize, mut seed: u64) -> Values {
        let mut values = |tokens: usize| {
            (0..tokens * width).map(|_| bf16::from_f32(4.0 * tiny_mixtral::random(&mut seed) - 2.0)).collect()
        };
        Values { width, of: SEQUENCES.iter().map(|[tokens, _]| values(*tokens)).collect() }
    }

    /// The rows of some tokens of each sequence.
    fn tensor<B: Backend>(&self, backend: &B, tokens: &[Range<usize>]) -> B::Tensor {
        let rows = self.of.iter().zip(tokens).flat_map(|(of, tokens)| {
            of[tokens.start * self.width..tokens.end * self.width].iter().flat_map(|x| x.to_le_bytes())
        });
        backend.decode(Activations::Bf16, &rows.collect::<Vec<u8>>(), self.width)
    }
}

fn batch(tokens: &[Range<usize>]) -> Batch {
    let (mut batch, mut first_block) = (Batch::default(), 0);
    for ([all, _], tokens) in SEQUENCES.iter().zip(tokens) {
        let blocks = all.div_ceil(BLOCK_SIZE) as u32;
        // From the last one to the first.
        let table: Vec<u32> = (first_block..first_block + blocks).rev().collect();
        first_block += blocks;
        batch.push(&vec![0; tokens.len()], tokens.start, &table, BLOCK_SIZE);
    }
    assert!(first_block as usize <= BLOCKS);
    batch
}

/// Bits of the last rows of each sequence, when all come at once and when the last come in a step of their own.
fn in_one_step_and_in_two<B: Backend>(
    backend: &B,
    mut attend: impl FnMut(&[Range<usize>], bool) -> B::Tensor,
) {
    let bits = |x: &B::Tensor, row: usize| {
        let mut out = Vec::new();
        backend.copy_row(x, row, &mut out);
        out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let whole = SEQUENCES.map(|[tokens, _]| 0..tokens);
    let at_once = attend(&whole, true);
    let before = SEQUENCES.map(|[tokens, last]| 0..tokens - last);
    attend(&before, false);
    let last = SEQUENCES.map(|[tokens, last]| tokens - last..tokens);
    let alone = attend(&last, false);
    let (mut row, mut end) = (0, 0);
    for [tokens, last] in SEQUENCES {
        end += tokens;
        for at in end - last..end {
            assert_eq!(bits(&alone, row), bits(&at_once, at), "token {at} of a sequence of {tokens}");
            row += 1;
        }
    }
}

#[test]
fn keys_spread_over_blocks_give_the_same_bits() {
    let backend = emulated::backend()(1);
    for (head_dim, window) in [(64, None), (20, Some(270))] {
        let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim, scale: 0.3, window };
        let [q, k, v] = [(4, 1), (2, 2), (2, 3)].map(|(heads, seed)| Values::new(heads * head_dim, seed));
        let mut caches = [0, 1].map(|_| backend.kv_blocks(&shape, BLOCKS).unwrap());
        in_one_step_and_in_two(&backend, |tokens, at_once| {
            let batch = batch(tokens);
            let [q, k, v] = [&q, &k, &v].map(|values| values.tensor(&backend, tokens));
            let cache = &mut caches[usize::from(at_once)];
            backend.attend([&q, &k, &v], cache, &backend.place(&batch), &shape, None)
        });
    }
}

#[test]
fn latents_spread_over_blocks_give_the_same_bits() {
    let backend = emulated::backend()(1);
    let shape = LatentShape { heads: 2, latent: 18, rope: 6, scale: 0.2 };
    let [q, latent, key] = [(48, 4), (18, 5), (6, 6)].map(|(width, seed)| Values::new(width, seed));
    let mut caches = [0, 1].map(|_| backend.latent_blocks(&shape, BLOCKS).unwrap());
    in_one_step_and_in_two(&backend, |tokens, at_once| {
        let batch = batch(tokens);
        let [q, latent, key] = [&q, &latent, &key].map(|values| values.tensor(&backend, tokens));
        let cache = &mut caches[usize::from(at_once)];
        backend.attend_latent(&q, &latent, &key, cache, &backend.place(&batch), &shape)
    });
}
