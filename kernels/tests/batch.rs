//! The product promise that a request gives the same tokens whatever else is in the batch: a row's result has the
//! same bits alone and among others, and at any point where a prefill is cut.

mod ops {
    pub mod parts;
    pub mod random;
}

use coterie_kernels::cpu::attention::{self, Shape};
use coterie_kernels::cpu::isa::Isa;
use coterie_kernels::cpu::matmul::{self, Matrix};
use coterie_kernels::cpu::pool::Pool;
use coterie_kernels::cpu::quant::Int8;
use coterie_kernels::cpu::{logits, norm};
use ops::parts::{BLOCKS, TOKENS, equal_the_whole};
use ops::random::Random;

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_row_of_a_product_does_not_depend_on_the_batch() {
    let (n, k, most) = (72, 1100, 140);
    let mut random = Random::new(1);
    let (x, w) = (random.values(most * k), random.bf16s(n * k));
    for &isa in Isa::available() {
        let (one, two) = (Pool::with_isa(1, isa), Pool::with_isa(2, isa));
        let int8 = Int8::quantize_bf16(&two, &w, n, k);
        for w in [Matrix::Bf16 { values: &w, n, k }, Matrix::Int8(int8.view())] {
            let alone = |row: usize| {
                let mut out = vec![f32::NAN; n];
                matmul::any(&one, &mut out, &x[row * k..][..k], w, 1);
                bits(&out)
            };
            let alone: Vec<Vec<u32>> = (0..most).map(alone).collect();
            for m in [2, 3, 4, 8, 32, most] {
                let mut out = vec![f32::NAN; m * n];
                matmul::any(&two, &mut out, &x[..m * k], w, m);
                for (row, out) in out.chunks(n).enumerate() {
                    assert!(bits(out) == alone[row], "{isa:?}: row {row} of {m} differs");
                }
            }
        }
    }
}

#[test]
fn a_row_of_a_norm_or_softmax_does_not_depend_on_the_batch() {
    let (dim, rows) = (577, 90);
    let mut random = Random::new(2);
    let (x, weight) = (random.values(rows * dim), random.values(dim));
    let pool = Pool::new(2);
    let run = |x: &[f32]| {
        let mut out = vec![f32::NAN; x.len()];
        norm::rms_norm(&pool, &mut out, x, &weight, 1e-5, dim);
        logits::softmax_rows(&pool, &mut out, dim);
        bits(&out)
    };
    let together = run(&x);
    for (row, together) in together.chunks(dim).enumerate() {
        assert!(run(&x[row * dim..][..dim]) == together, "row {row} differs");
    }
}

/// One sequence computed token by token, in one prefill, in chunks, and beside other sequences.
#[test]
fn attention_does_not_depend_on_chunks_or_neighbours() {
    whole_and_in_parts(None, None);
    let sinks: Vec<f32> = (0..6).map(|head| head as f32 - 2.5).collect();
    whole_and_in_parts(Some(70), Some(&sinks));
}

fn whole_and_in_parts(window: Option<usize>, sinks: Option<&[f32]>) {
    let shape = Shape { q_heads: 6, kv_heads: 2, head_dim: 40, block_size: 16, scale: 0.2, window };
    let (width, kv) = (240, 80);
    let mut random = Random::new(3);
    let blocks = random.permutation(2 * BLOCKS);
    let (q, k, v) = (random.values(TOKENS * width), random.values(TOKENS * kv), random.values(TOKENS * kv));
    let cache = || vec![0.0; 2 * BLOCKS * shape.block_len()];
    let (mut keys, mut values) = (cache(), cache());
    let (mine, other) = blocks.split_at(BLOCKS);
    let pool = Pool::new(2);
    for table in [mine, other] {
        let slots: Vec<u32> = (0..TOKENS).map(|p| table[p / 16] * 16 + p as u32 % 16).collect();
        attention::kv_store(&pool, &mut keys, &mut values, &k, &v, &slots, &shape);
    }
    equal_the_whole(&mut random, &q, width, [mine, other], |pool, out, q, sequences| {
        attention::paged(pool, out, q, [&keys, &values], sinks, sequences, &shape);
    });
}
