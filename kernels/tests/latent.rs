//! The absorbed form of latent attention comes to what the paper's equations say, and a row of it has the same bits
//! wherever a prefill is cut and whatever runs beside it.

mod ops {
    pub mod parts;
    pub mod random;
}

use coterie_kernels::cpu::attention::Sequence;
use coterie_kernels::cpu::attention::latent::{self, Shape};
use coterie_kernels::cpu::matmul;
use coterie_kernels::cpu::pool::Pool;
use ops::parts::{BLOCKS, TOKENS, equal_the_whole};
use ops::random::Random;

const SHAPE: Shape = Shape { heads: 5, latent: 40, rope: 6, block_size: 16, scale: 0.15 };

/// Keys and values of every head are made from the latents, as the equations have it, in f64: nothing is absorbed.
#[test]
fn absorbing_the_matrices_changes_nothing() {
    let (tokens, nope, value) = (70, 12, 9);
    let Shape { heads, latent, rope, scale, .. } = SHAPE;
    let mut random = Random::new(4);
    let (latents, ropes) = (random.values(tokens * latent), random.values(tokens * rope));
    let (q_nope, q_rope) = (random.values(tokens * heads * nope), random.values(tokens * heads * rope));
    let (uk, uv) = (random.values(heads * nope * latent), random.values(heads * value * latent));
    let wide = f64::from;

    let pool = Pool::new(1);
    let (mut q, mut attended) = (Vec::new(), vec![f32::NAN; tokens * heads * latent]);
    for (at, (nope_part, rope_part)) in q_nope.chunks(nope).zip(q_rope.chunks(rope)).enumerate() {
        let key_matrix = &uk[at % heads * nope * latent..][..nope * latent];
        let across: Vec<f32> = (0..latent * nope).map(|i| key_matrix[i % nope * latent + i / nope]).collect();
        let mut absorbed = vec![f32::NAN; latent];
        matmul::f32(&pool, &mut absorbed, nope_part, &across, 1, latent, nope);
        q.extend(absorbed);
        q.extend(rope_part);
    }
    let table: Vec<u32> = (0..5).collect();
    let mut cache = vec![0.0; 5 * SHAPE.block_len()];
    latent::store(&mut cache, &latents, &ropes, &(0..tokens as u32).collect::<Vec<_>>(), &SHAPE);
    let sequence = Sequence { rows: 0..tokens, block_table: &table, context: tokens };
    latent::paged(&pool, &mut attended, &q, &cache, &[sequence], &SHAPE);

    for (at, attended) in attended.chunks(latent).enumerate() {
        let (token, head) = (at / heads, at % heads);
        let mut ours = vec![f32::NAN; value];
        matmul::f32(
            &pool,
            &mut ours,
            attended,
            &uv[head * value * latent..][..value * latent],
            1,
            value,
            latent,
        );
        let from_latent = |w: &[f32], row: usize, p: usize| -> f64 {
            (0..latent).map(|c| wide(w[row * latent + c]) * wide(latents[p * latent + c])).sum()
        };
        let score = |p: usize| {
            let nope = (0..nope).map(|i| wide(q_nope[at * nope + i]) * from_latent(&uk, head * nope + i, p));
            let rope = (0..rope).map(|i| wide(q_rope[at * rope + i]) * wide(ropes[p * rope + i]));
            (nope.sum::<f64>() + rope.sum::<f64>()) * wide(scale)
        };
        let scores: Vec<f64> = (0..=token).map(score).collect();
        let max = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for (i, ours) in ours.iter().enumerate() {
            let weighted = |p: usize| weights[p] / sum * from_latent(&uv, head * value + i, p);
            let exact = (0..=token).map(weighted).sum::<f64>();
            assert!((wide(*ours) - exact).abs() < 2e-5 * exact.abs().max(1.0), "{at}: {ours} {exact}");
        }
    }
}

#[test]
fn a_row_does_not_depend_on_chunks_or_neighbours() {
    let (width, out_width) = (5 * SHAPE.width(), 5 * SHAPE.latent);
    let mut random = Random::new(3);
    let blocks = random.permutation(2 * BLOCKS);
    let (mine, other) = blocks.split_at(BLOCKS);
    let q = random.values(TOKENS * width);
    let (latents, ropes) = (random.values(TOKENS * SHAPE.latent), random.values(TOKENS * SHAPE.rope));
    let mut cache = vec![0.0; 2 * BLOCKS * SHAPE.block_len()];
    for table in [mine, other] {
        let slots: Vec<u32> = (0..TOKENS).map(|p| table[p / 16] * 16 + p as u32 % 16).collect();
        latent::store(&mut cache, &latents, &ropes, &slots, &SHAPE);
    }
    equal_the_whole(&mut random, &q, out_width, [mine, other], |pool, out, q, sequences| {
        latent::paged(pool, out, q, &cache, sequences, &SHAPE);
    });
}
