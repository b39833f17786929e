//! Speed of every op beside what the machine can do: `cargo bench -p coterie-kernels --bench ops -- [THREADS]`.
//!
//! Sizes are those of the talking model (hidden 576, experts of 1536, 9 query heads of 64 over 3 KV heads). Weights
//! of decoding are a gibibyte, walked through matrix by matrix, so that they come from memory as they do in a model.
//! Each figure is the best of several repetitions.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;

use coterie_kernels::cpu::attention::{self, Sequence, Shape, latent};
use coterie_kernels::cpu::isa::Isa;
use coterie_kernels::cpu::lightning::{self, Decays, Origin, Plan, States};
use coterie_kernels::cpu::matmul::{self, Matrix};
use coterie_kernels::cpu::mxfp4::{self, Mxfp4View};
use coterie_kernels::cpu::pool::Pool;
use coterie_kernels::cpu::quant::{GROUP, Int8, Int8View};
use coterie_kernels::cpu::{activation, gate, logits, norm};
use coterie_kernels::gate::{Groups, Rule, Scores, Worth};
use half::bf16;

const HIDDEN: usize = 576;
const EXPERT: usize = 1536;
const GIB: usize = 1 << 30;

fn main() {
    let threads = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(0);
    let pool = Pool::new(threads);
    println!("{} threads, {:?}", pool.threads(), pool.isa());
    println!("{:<44} {:>10} {:>9} {:>9}", "op", "time", "GB/s", "GFLOP/s");
    machine(&pool);
    line("empty run of the pool", time(20_000, || pool.run(|_, _| {})), 0, 0);
    decode(&pool);
    decode_packed(&pool);
    prefill(&pool);
    attend(&pool);
    attend_latent(&pool);
    lightning(&pool);
    rows(&pool);
    for &isa in Isa::available() {
        let pool = Pool::with_isa(1, isa);
        let (m, n, k) = (96, 96, HIDDEN);
        let (x, w, mut out) = (floats(m * k), bf16s(n * k), floats(m * n));
        let seconds = time(20, || matmul::bf16(&pool, &mut out, &x, &w, m, n, k));
        line(&format!("bf16 {m} × {n} × {k}, one thread, {isa:?}"), seconds, 0, 2 * m * n * k);
        let w = Int8::quantize_bf16(&pool, &w, n, k);
        let seconds = time(20, || matmul::int8(&pool, &mut out, &x, w.view(), m));
        line(&format!("int8 {m} × {n} × {k}, one thread, {isa:?}"), seconds, 0, 2 * m * n * k);
    }
}

/// The bounds: reading, copying, multiplying.
fn machine(pool: &Pool) {
    let (from, mut to) = (vec![1u64; GIB / 8], vec![2u64; GIB / 8]);
    let share = from.len().div_ceil(pool.threads());
    let read = || {
        pool.run(|worker, _| {
            let mine = from.chunks(share).nth(worker).unwrap_or_default();
            black_box(mine.iter().fold(0u64, |sum, x| sum.wrapping_add(*x)));
        });
    };
    line("machine: read memory", time(5, read), GIB, 0);
    let targets: Vec<Mutex<&mut [u64]>> = to.chunks_mut(share).map(Mutex::new).collect();
    let copy = || {
        pool.run(|worker, _| {
            let mut target = targets[worker].lock().expect("no panic before");
            target.copy_from_slice(from.chunks(share).nth(worker).unwrap_or_default());
        });
    };
    line("machine: copy memory (read + write)", time(5, copy), 2 * GIB, 0);
    #[cfg(target_arch = "x86_64")]
    if pool.isa() >= Isa::Avx512 {
        const STEPS: usize = 1 << 20;
        // SAFETY: AVX-512 was detected.
        let seconds = time(10, || pool.run(|_, _| unsafe { multiply_adds(STEPS) }));
        line("machine: AVX-512 multiply-adds", seconds, 0, pool.threads() * STEPS * 16 * 16 * 2);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn multiply_adds(steps: usize) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_set1_ps};
    let factor = _mm512_set1_ps(black_box(0.999));
    let mut sums = [_mm512_set1_ps(1.0); 16];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, factor, factor);
        }
    }
    black_box(sums);
}

/// Few rows, weights from memory.
fn decode(pool: &Pool) {
    let (n, k) = (EXPERT, HIDDEN);
    let weights = bf16s(GIB / 2);
    let matrices: Vec<&[bf16]> = weights.chunks_exact(n * k).collect();
    for m in [1, 2, 3, 4, 8] {
        let (x, mut out) = (floats(m * k), floats(m * n));
        let seconds = time(3, || {
            for w in &matrices {
                matmul::bf16(pool, &mut out, &x, w, m, n, k);
            }
        });
        let count = matrices.len();
        line(&format!("bf16 {m} × {n} × {k}"), seconds / count as f64, 2 * n * k, 2 * m * n * k);
    }
    let (x, mut out) = (floats(HIDDEN), floats(49_152));
    let seconds = time(5, || matmul::bf16(pool, &mut out, &x, &weights[..49_152 * k], 1, 49_152, k));
    line("bf16 1 × 49152 × 576 (head)", seconds, 2 * 49_152 * k, 2 * 49_152 * k);
    drop(weights);

    let groups = k.div_ceil(GROUP);
    let count = GIB / (n * k);
    let values: Vec<i8> = (0..count * n * k).map(|i| (i * 31 % 255) as u8 as i8).collect();
    let scales = vec![0.01f32; count * n * groups];
    for m in [1, 2, 4, 8] {
        let (x, mut out) = (floats(m * k), floats(m * n));
        let seconds = time(3, || {
            for (values, scales) in values.chunks_exact(n * k).zip(scales.chunks_exact(n * groups)) {
                matmul::int8(pool, &mut out, &x, Int8View { values, scales, n, k }, m);
            }
        });
        line(&format!("int8 {m} × {n} × {k}"), seconds / count as f64, Int8::bytes_for(n, k), 2 * m * n * k);
    }
}

/// [`decode`] with MXFP4 weights.
fn decode_packed(pool: &Pool) {
    let (n, k) = (EXPERT, HIDDEN);
    let count = 2 * GIB / (n * k);
    let blocks: Vec<u8> = (0..count * n * k / 2).map(|i| (i * 31 % 255) as u8).collect();
    let scales = vec![120u8; count * n * k / mxfp4::GROUP];
    for m in [1, 2, 4, 8, 64] {
        let (x, mut out) = (floats(m * k), floats(m * n));
        let matrices = blocks.chunks_exact(n * k / 2).zip(scales.chunks_exact(n * k / mxfp4::GROUP));
        let repeated = if m > 8 { 16 } else { count };
        let seconds = time(3, || {
            for (blocks, scales) in matrices.clone().take(repeated) {
                let w = Matrix::Mxfp4(Mxfp4View { blocks, scales, n, k, first: 0, step: 1 });
                matmul::any(pool, &mut out, &x, w, m);
            }
        });
        let bytes = n * k / 2 + n * k / mxfp4::GROUP;
        line(&format!("mxfp4 {m} × {n} × {k}"), seconds / repeated as f64, bytes, 2 * m * n * k);
    }
}

/// Many rows: arithmetic is the bound.
fn prefill(pool: &Pool) {
    for (m, n, k) in [
        (16, EXPERT, HIDDEN),
        (64, EXPERT, HIDDEN),
        (512, EXPERT, HIDDEN),
        (512, HIDDEN, EXPERT),
        (256, 2048, 4096),
    ] {
        let (x, w, mut out) = (floats(m * k), bf16s(n * k), floats(m * n));
        let seconds = time(10, || matmul::bf16(pool, &mut out, &x, &w, m, n, k));
        line(&format!("bf16 {m} × {n} × {k}"), seconds, 2 * n * k, 2 * m * n * k);
        let int8 = Int8::quantize_bf16(pool, &w, n, k);
        let seconds = time(10, || matmul::int8(pool, &mut out, &x, int8.view(), m));
        line(&format!("int8 {m} × {n} × {k}"), seconds, Int8::bytes_for(n, k), 2 * m * n * k);
        let w32 = floats(n * k);
        if m == 64 {
            let seconds = time(10, || matmul::any(pool, &mut out, &x, Matrix::F32 { values: &w32, n, k }, m));
            line(&format!("f32 {m} × {n} × {k}"), seconds, 4 * n * k, 2 * m * n * k);
            let seconds = time(5, || _ = Int8::quantize_bf16(pool, &w, n, k));
            line(&format!("quantize {n} × {k}"), seconds, 2 * n * k + Int8::bytes_for(n, k), 0);
        }
    }
}

fn attend(pool: &Pool) {
    let shape = Shape { q_heads: 9, kv_heads: 3, head_dim: 64, block_size: 16, scale: 0.125, window: None };
    let context = 4096;
    let sequences = 16;
    let blocks: Vec<u32> = (0..(sequences * context / 16) as u32).map(|block| block ^ 5).collect();
    let (keys, values) = (floats(blocks.len() * shape.block_len()), floats(blocks.len() * shape.block_len()));
    let width = shape.q_heads * shape.head_dim;
    let run = |name: &str, rows: usize, count: usize| {
        let (q, mut out) = (floats(rows * count * width), floats(rows * count * width));
        let all: Vec<Sequence<'_>> = (0..count)
            .map(|i| Sequence {
                rows: i * rows..(i + 1) * rows,
                block_table: &blocks[i * context / 16..(i + 1) * context / 16],
                context,
            })
            .collect();
        let seconds = time(10, || attention::paged(pool, &mut out, &q, [&keys, &values], None, &all, &shape));
        let seen = count * rows * (2 * context - rows + 1) / 2;
        line(name, seconds, count * context * shape.kv_heads * shape.head_dim * 8, seen * width * 4);
    };
    run("attention, decode, 1 × 4096 keys", 1, 1);
    run("attention, decode, 16 × 4096 keys", 1, 16);
    run("attention, prefill, 512 rows, 4096 keys", 512, 1);
}

/// Latent attention as DeepSeek-V3 has it.
fn attend_latent(pool: &Pool) {
    let shape = latent::Shape { heads: 128, latent: 512, rope: 64, block_size: 16, scale: 0.07 };
    let context = 4096;
    let blocks: Vec<u32> = (0..context as u32 / 16).map(|block| block ^ 5).collect();
    let cache = floats(blocks.len() * shape.block_len());
    for (name, rows) in [("decode", 1), ("prefill, 64 rows", 64)] {
        let heads = rows * shape.heads;
        let (q, mut out) = (floats(heads * shape.width()), floats(heads * shape.latent));
        let sequence = Sequence { rows: 0..rows, block_table: &blocks, context };
        let all = [sequence];
        let seconds = time(5, || latent::paged(pool, &mut out, &q, &cache, &all, &shape));
        let seen = heads * (2 * context - rows + 1) / 2;
        let flops = seen * 2 * (shape.width() + shape.latent);
        line(&format!("latent attention, {name}, 4096 keys"), seconds, 4 * cache.len(), flops);
    }
}

/// The heads of MiniMax-Text-01.
fn lightning(pool: &Pool) {
    let shape = lightning::Shape { heads: 64, head_dim: 128 };
    let (sequences, width) = (4, shape.heads * shape.head_dim);
    let decays = Decays::new(&[0.1; 64]);
    let (mut sums, mut tails) = (floats(sequences * shape.sums_len()), floats(sequences * shape.tail_len()));
    let mut run = |name: &str, rows: usize, count: usize| {
        let (qkv, mut out) = (floats(3 * rows * count * width), floats(rows * count * width));
        let mut plan = Plan::default();
        for i in 0..count {
            plan.push(i * rows..(i + 1) * rows, 1, i, Origin::Slot, std::iter::empty());
        }
        let seconds = time(5, || {
            let states = States { sums: &mut sums, tails: &mut tails, snapshots: &mut [] };
            lightning::attend(pool, &mut out, &qkv, states, &plan, &shape, &decays);
        });
        let flops = rows * count * width * (4 * shape.head_dim + 2 * lightning::BLOCK);
        line(name, seconds, count * shape.sums_len() * 4, flops);
    };
    run("lightning, decode, 1 × 64 heads of 128", 1, 1);
    run("lightning, decode, 4 × 64 heads of 128", 1, 4);
    run("lightning, prefill, 512 rows", 512, 1);
}

fn rows(pool: &Pool) {
    for rows in [1, 512] {
        let (x, weight, mut out) = (floats(rows * HIDDEN), floats(HIDDEN), floats(rows * HIDDEN));
        let seconds = time(1000, || norm::rms_norm(pool, &mut out, &x, &weight, 1e-5, HIDDEN));
        line(&format!("rms_norm {rows} × {HIDDEN}"), seconds, 8 * rows * HIDDEN, 0);
        let (g, up, mut out) = (floats(rows * EXPERT), floats(rows * EXPERT), floats(rows * EXPERT));
        let seconds = time(1000, || activation::silu_mul(pool, &mut out, &g, &up));
        line(&format!("silu_mul {rows} × {EXPERT}"), seconds, 12 * rows * EXPERT, 0);
        let logits = floats(rows * 8);
        let (mut ids, mut weights) = (vec![0; rows * 2], vec![0.0; rows * 2]);
        let rule =
            Rule { per_token: 2, scores: Scores::Softmax, groups: None, renormalise: true, factor: 1.0 };
        let choose = || gate::choose(pool, &logits, None, 8, &rule, &mut ids, &mut weights);
        line(&format!("gate, softmax, {rows} × 8"), time(1000, choose), 0, 0);
        let logits = floats(rows * 256);
        let (mut ids, mut weights) = (vec![0; rows * 8], vec![0.0; rows * 8]);
        let groups = Some(Groups { count: 8, kept: 4, worth: Worth::TwoBest });
        let rule = Rule { per_token: 8, scores: Scores::Sigmoid, groups, renormalise: true, factor: 2.5 };
        let choose = || gate::choose(pool, &logits, Some(&logits[..256]), 256, &rule, &mut ids, &mut weights);
        line(&format!("gate, sigmoid in groups, {rows} × 256"), time(1000, choose), 0, 0);
    }
    let row = floats(49_152);
    line("argmax 49152", time(100, || _ = black_box(logits::argmax(pool, &row))), 4 * row.len(), 0);
    let top = || _ = black_box(logits::log_softmax_top(pool, &row, 7, 20));
    line("log_softmax_top 49152, 20", time(100, top), 4 * row.len(), 0);
}

fn floats(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + i / 64) % 101) as f32 / 50.0 - 1.0).collect()
}

fn bf16s(n: usize) -> Vec<bf16> {
    (0..n).map(|i| bf16::from_bits(0x3c00 | ((i * 37 + i / 64) as u16 & 0x81ff))).collect()
}

/// Seconds of the fastest of `count` calls, after one to warm up.
fn time(count: usize, mut call: impl FnMut()) -> f64 {
    call();
    let timed = (0..count).map(|_| {
        let start = Instant::now();
        call();
        start.elapsed().as_secs_f64()
    });
    timed.fold(f64::INFINITY, f64::min)
}

fn line(name: &str, seconds: f64, bytes: usize, flops: usize) {
    let rate =
        |amount: usize| if amount == 0 { "".into() } else { format!("{:.1}", amount as f64 / seconds / 1e9) };
    println!("{name:<44} {:>7.1} µs {:>9} {:>9}", seconds * 1e6, rate(bytes), rate(flops));
}
