//! The list of cases, and the ops on rows and elements.

use coterie_kernels::cpu::attention::{Shape, latent};
use coterie_kernels::cpu::isa::Isa;
use coterie_kernels::cpu::pool::Pool;
use coterie_kernels::cpu::{activation, logits, norm, rope};
use half::bf16;

use super::device::{Answer, Device};
use super::random::Random;
use super::{attention, gates, latent as latents, lightning, products};

/// Runs an op on a device.
pub type Run = Box<dyn Fn(&dyn Device) -> Answer>;

/// One op on one input.
pub struct Case {
    pub name: String,
    pub run: Run,
    /// What the op's specification gives.
    pub specified: Vec<f32>,
    /// The same in f64.
    pub exact: Vec<f64>,
    /// Most normalised error of the specification against `exact`.
    pub bound: f64,
}

/// (m, n, k): tails of every loop, the sizes of the talking model, several parts and several pieces along k.
const PRODUCTS: [(usize, usize, usize); 16] = [
    (1, 1, 1),
    (1, 3, 63),
    (1, 17, 64),
    (1, 17, 65),
    (1, 40, 576),
    (1, 9, 1536),
    (2, 17, 65),
    (3, 8, 130),
    (4, 24, 64),
    (5, 33, 63),
    (7, 40, 100),
    (8, 17, 1536),
    (13, 19, 1100),
    (32, 48, 576),
    (101, 23, 33),
    (150, 140, 160),
];

/// What products and attention are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// Any number.
    F32,
    /// What tensor cores read without rounding.
    Bf16,
}

impl Inputs {
    pub fn of(self, mut x: Vec<f32>) -> Vec<f32> {
        if self == Inputs::Bf16 {
            x.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
        }
        x
    }
}

pub fn all(inputs: Inputs) -> Vec<Case> {
    let mut cases = Vec::new();
    for (m, n, k) in PRODUCTS {
        let of_f32 = products::f32(m, n, k);
        cases.extend([products::bf16(inputs, m, n, k), of_f32, products::int8(inputs, m, n, k)]);
    }
    for (m, n, k) in [(1, 1, 32), (1, 17, 64), (2, 9, 96), (3, 8, 160), (7, 40, 1568), (101, 23, 32)] {
        cases.push(products::mxfp4(inputs, m, n, k));
    }
    cases.push(products::grouped());
    for (n, k) in [(1, 1), (3, 63), (17, 65), (40, 576)] {
        cases.push(products::quantize(n, k));
    }
    for (rows, dim) in [(1, 1), (3, 17), (1, 64), (40, 576), (2, 1536)] {
        cases.extend([rms_norm(rows, dim), softmax(rows, dim)]);
    }
    for n in [1, 15, 16, 33, 40_000] {
        cases.extend([silu_mul(n), silu(n), sigmoid_mul(n), clamped_swiglu(n), add(n), blend(n)]);
    }
    for (rows, dim) in [(1, 1), (7, 33), (300, 70)] {
        cases.extend([add_to_rows(rows, dim), gate_rows(rows, dim)]);
    }
    for interleaved in [false, true] {
        cases.extend([rotate(8, 8, interleaved), rotate(64, 32, interleaved)]);
    }
    cases.extend([gather(), combine()]);
    cases.extend(gates::all());
    for (head_dim, q_heads, kv_heads, block_size) in
        [(64, 9, 3, 16), (8, 4, 4, 32), (24, 20, 1, 16), (128, 8, 2, 64), (80, 2, 1, 16)]
    {
        let shape = Shape { q_heads, kv_heads, head_dim, block_size, scale: 0.11, window: None };
        cases.push(attention::paged(inputs, shape, false));
        for window in [1, 16, 50, 300] {
            let shape = Shape { window: Some(window), ..shape };
            cases.push(attention::paged(inputs, shape, window % 3 == 1));
        }
    }
    for (head_dim, window) in [(96, None), (192, Some(40)), (256, None), (256, Some(300))] {
        let shape = Shape { q_heads: 4, kv_heads: 2, head_dim, block_size: 16, scale: 0.05, window };
        cases.push(attention::paged(inputs, shape, window.is_some()));
    }
    for (heads, head_dim) in [(1, 1), (3, 5), (2, 16), (5, 24), (1, 40), (3, 80), (2, 128)] {
        cases.push(lightning::attend(heads, head_dim));
    }
    let shape = Shape { q_heads: 6, kv_heads: 2, head_dim: 20, block_size: 16, scale: 0.11, window: None };
    cases.push(attention::paged(inputs, shape, true));
    for (latent, rope, heads, block_size) in
        [(512, 64, 17, 16), (20, 6, 3, 32), (7, 1, 1, 16), (64, 2, 50, 16)]
    {
        cases.push(latents::paged(inputs, latent::Shape { heads, latent, rope, block_size, scale: 0.11 }));
    }
    cases.extend([latents::cut(1, 5, 3, 2), latents::cut(90, 7, 40, 24)]);
    cases
}

/// A case whose specification is what the CPU computes in plain Rust; the rest is to be filled in.
pub fn on_one_core(run: impl Fn(&dyn Device) -> Answer + 'static) -> Case {
    let (specified, _) = run(&Pool::with_isa(1, Isa::Scalar)).expect("the CPU has every op");
    Case { name: String::new(), run: Box::new(run), specified, exact: Vec::new(), bound: 0.0 }
}

fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

fn rms_norm(rows: usize, dim: usize) -> Case {
    let mut random = Random::new(dim as u64);
    let (x, weight, eps) = (random.values(rows * dim), random.values(dim), 1e-5);
    let mut specified = vec![0.0; x.len()];
    norm::reference(&mut specified, &x, &weight, eps);
    let wide = widen(&x);
    let exact = wide.chunks(dim).flat_map(|x| {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / dim as f64;
        let scaled: Vec<f64> =
            x.iter().zip(&weight).map(|(x, w)| x / (mean + f64::from(eps)).sqrt() * f64::from(*w)).collect();
        scaled
    });
    Case {
        name: format!("rms_norm {rows} {dim}"),
        specified,
        exact: exact.collect(),
        bound: 1e-6,
        run: Box::new(move |device| device.rms_norm(&x, &weight, eps)),
    }
}

pub fn exact_softmax(x: &[f32]) -> Vec<f64> {
    let max = x.iter().copied().fold(f32::MIN, f32::max);
    let terms: Vec<f64> = x.iter().map(|x| f64::from(x - max).exp()).collect();
    let sum: f64 = terms.iter().sum();
    terms.iter().map(|term| term / sum).collect()
}

fn softmax(rows: usize, dim: usize) -> Case {
    let mut x: Vec<f32> = Random::new(dim as u64 + 1).values(rows * dim).iter().map(|x| x * 20.0).collect();
    if dim > 16 {
        x[3] = f32::NEG_INFINITY;
        x[5] = -1e30;
    }
    let mut specified = x.clone();
    specified.chunks_mut(dim).for_each(logits::softmax_reference);
    Case {
        name: format!("softmax {rows} {dim}"),
        specified,
        exact: x.chunks(dim).flat_map(exact_softmax).collect(),
        bound: 1e-6,
        run: Box::new(move |device| {
            let mut out = x.clone();
            logits::softmax_rows(device.cpu()?, &mut out, dim);
            Some((out, 0.0))
        }),
    }
}

fn silu_mul(n: usize) -> Case {
    let mut random = Random::new(n as u64);
    let mut g: Vec<f32> = random.values(n).iter().map(|g| g * 8.0).collect();
    if n > 20 {
        (g[0], g[1], g[2], g[20]) = (-200.0, 200.0, 0.0, -87.9);
    }
    let up = random.values(n);
    let mut specified = vec![0.0; n];
    activation::silu_mul_reference(&mut specified, &g, &up);
    Case {
        name: format!("silu_mul {n}"),
        specified,
        exact: widen(&g).iter().zip(&up).map(|(g, up)| g / (1.0 + (-g).exp()) * f64::from(*up)).collect(),
        bound: 1e-6,
        run: Box::new(move |device| device.silu_mul(&g, &up)),
    }
}

fn silu(n: usize) -> Case {
    let x: Vec<f32> = Random::new(n as u64).values(n).iter().map(|x| x * 9.0).collect();
    let mut specified = x.clone();
    activation::silu_reference(&mut specified);
    Case {
        name: format!("silu {n}"),
        specified,
        exact: widen(&x).iter().map(|x| x / (1.0 + (-x).exp())).collect(),
        bound: 1e-6,
        run: Box::new(move |device| device.silu(&x)),
    }
}

fn sigmoid_mul(n: usize) -> Case {
    let mut random = Random::new(n as u64);
    let (x, gate) = (random.values(n), random.values(n));
    let mut specified = x.clone();
    activation::sigmoid_mul_reference(&mut specified, &gate);
    Case {
        name: format!("sigmoid_mul {n}"),
        specified,
        exact: widen(&x).iter().zip(widen(&gate)).map(|(x, g)| x / (1.0 + (-g).exp())).collect(),
        bound: 1e-6,
        run: Box::new(move |device| device.sigmoid_mul(&x, &gate)),
    }
}

fn add(n: usize) -> Case {
    let mut random = Random::new(n as u64);
    let (a, b) = (random.values(n), random.values(n));
    Case {
        name: format!("add {n}"),
        specified: a.iter().zip(&b).map(|(a, b)| a + b).collect(),
        exact: widen(&a).iter().zip(&b).map(|(a, b)| a + f64::from(*b)).collect(),
        bound: 1e-7,
        run: Box::new(move |device| device.add(&a, &b)),
    }
}

fn blend(n: usize) -> Case {
    let mut random = Random::new(n as u64);
    let (x, y) = (random.values(n), random.values(n));
    let exact = widen(&x).into_iter().zip(widen(&y)).map(|(x, y)| 3.5 * x + 0.75 * y);
    Case {
        name: format!("blend {n}"),
        specified: x.iter().zip(&y).map(|(x, y)| 3.5 * x + 0.75 * y).collect(),
        exact: exact.collect(),
        bound: 1e-6,
        run: Box::new(move |device| device.blend(&x, &y, 3.5, 0.75)),
    }
}

fn gather() -> Case {
    let (dim, mut random) = (70, Random::new(5));
    let (x, rows) = (random.values(400 * dim), random.permutation(400));
    let picked: Vec<f32> = rows.iter().flat_map(|row| x[*row as usize * dim..][..dim].to_vec()).collect();
    Case {
        name: "gather".into(),
        exact: widen(&picked),
        specified: picked,
        bound: 0.0,
        run: Box::new(move |device| device.gather(&x, &rows, dim)),
    }
}

fn combine() -> Case {
    let (dim, tokens, top_k, mut random) = (70, 300, 3, Random::new(6));
    let expert_out = random.values(tokens * top_k * dim);
    let (rows, weights) = (random.permutation(tokens * top_k), random.values(tokens * top_k));
    let (mut specified, mut exact) = (vec![0f32; tokens * dim], vec![0f64; tokens * dim]);
    for (choice, (row, weight)) in rows.iter().zip(&weights).enumerate() {
        for d in 0..dim {
            let x = expert_out[*row as usize * dim + d];
            specified[choice / top_k * dim + d] += weight * x;
            exact[choice / top_k * dim + d] += f64::from(*weight) * f64::from(x);
        }
    }
    Case {
        name: "combine".into(),
        specified,
        exact,
        bound: 1e-6,
        run: Box::new(move |device| device.combine(&expert_out, &rows, &weights, top_k, dim)),
    }
}

fn clamped_swiglu(n: usize) -> Case {
    let mut random = Random::new(n as u64 + 3);
    let mut wide = || random.values(n).iter().map(|x| x * 6.0).collect::<Vec<f32>>();
    let (g, up, alpha, limit) = (wide(), wide(), 1.7f32, 2.5f32);
    let clamped = |(g, up): (&f32, &f32)| (g.min(limit), up.clamp(-limit, limit));
    let swiglu = |(g, up): (f32, f32)| {
        let (g, up) = (f64::from(g), f64::from(up));
        (up + 1.0) * g / (1.0 + (-f64::from(alpha) * g).exp())
    };
    Case {
        name: format!("clamped_swiglu {n}"),
        exact: g.iter().zip(&up).map(clamped).map(swiglu).collect(),
        bound: 1e-6,
        ..on_one_core(move |device| device.clamped_swiglu(&g, &up, alpha, limit))
    }
}

fn add_to_rows(rows: usize, dim: usize) -> Case {
    let mut random = Random::new(dim as u64 + 4);
    let (x, bias) = (random.values(rows * dim), random.values(dim));
    let sums = x.chunks(dim).flat_map(|row| row.iter().zip(&bias).map(|(x, bias)| x + bias));
    let exact =
        x.chunks(dim).flat_map(|row| row.iter().zip(&bias).map(|(x, b)| f64::from(*x) + f64::from(*b)));
    Case {
        name: format!("add_to_rows {rows} {dim}"),
        specified: sums.collect(),
        exact: exact.collect(),
        bound: 1e-7,
        run: Box::new(move |device| device.add_to_rows(&x, &bias)),
    }
}

fn gate_rows(rows: usize, dim: usize) -> Case {
    let mut random = Random::new(dim as u64 + 5);
    let (x, gates) = (random.values(rows * dim), random.values(rows));
    let sigmoid = |gate: f32| 1.0 / (1.0 + (-f64::from(gate)).exp());
    let exact = x.chunks(dim).zip(&gates).flat_map(|(row, gate)| {
        let factor = sigmoid(*gate * 30.0);
        row.iter().map(move |x| f64::from(*x) * factor)
    });
    let exact = exact.collect();
    let gates: Vec<f32> = gates.iter().map(|gate| gate * 30.0).collect();
    Case {
        name: format!("gate_rows {rows} {dim}"),
        exact,
        bound: 1e-6,
        ..on_one_core(move |device| device.gate_rows(&x, &gates))
    }
}

/// Exact angles are those of the f32 frequencies and products that models are trained with.
fn rotate(head_dim: usize, rotary_dim: usize, interleaved: bool) -> Case {
    let (heads, theta, half) = (3, 10_000f32, rotary_dim / 2);
    let positions: Vec<u32> = (0..150).map(|i| i * 54).collect();
    let x = Random::new(9).values(positions.len() * heads * head_dim);
    let frequencies: Vec<f32> =
        (0..half).map(|i| 1.0 / theta.powf((2 * i) as f32 / rotary_dim as f32)).collect();
    let factor = 1.25f32;
    let mut exact = widen(&x);
    for (row, head) in exact.chunks_mut(head_dim).enumerate() {
        for (i, frequency) in frequencies.iter().enumerate() {
            let angle = f64::from(positions[row / heads] as f32 * frequency);
            let (low, high) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
            let (a, b) = (head[low], head[high]);
            head[low] = (a * angle.cos() - b * angle.sin()) * f64::from(factor);
            head[high] = (b * angle.cos() + a * angle.sin()) * f64::from(factor);
        }
    }
    let table = rope::Table::new(&frequencies, factor, 8192);
    Case {
        name: format!("rotate {head_dim} {rotary_dim}, interleaved: {interleaved}"),
        exact,
        bound: 1e-6,
        ..on_one_core(move |device| device.rotate(&x, &table, &positions, heads, interleaved))
    }
}
