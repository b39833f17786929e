//! Matrix products and the quantization they use.

use coterie_kernels::cpu::matmul::{self, Job, Matrix};
use coterie_kernels::cpu::mxfp4::{self, Mxfp4View};
use coterie_kernels::cpu::pool::Pool;
use coterie_kernels::cpu::quant::{self, GROUP, Int8, Int8View};
use half::bf16;

use super::cases::{Case, Inputs};
use super::random::Random;

/// `x[m, k] · wᵀ`, weight i of `[n, k]` given by `w`.
fn exact_product(x: &[f32], w: impl Fn(usize) -> f64, m: usize, n: usize, k: usize) -> Vec<f64> {
    let at = |i: usize, j: usize| (0..k).map(|l| f64::from(x[i * k + l]) * w(j * k + l)).sum();
    (0..m * n).map(|i| at(i / n, i % n)).collect()
}

fn specified_product(x: &[f32], w: Matrix<'_>, m: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; m * w.n()];
    matmul::reference(&mut out, x, w, m);
    out
}

pub fn bf16(inputs: Inputs, m: usize, n: usize, k: usize) -> Case {
    let mut random = Random::new((m * n * k) as u64);
    let (x, w) = (inputs.of(random.values(m * k)), random.bf16s(n * k));
    Case {
        name: format!("bf16 product {m} {n} {k}"),
        specified: specified_product(&x, Matrix::Bf16 { values: &w, n, k }, m),
        exact: exact_product(&x, |i| w[i].to_f64(), m, n, k),
        bound: 1e-6,
        run: Box::new(move |device| device.product(&x, Matrix::Bf16 { values: &w, n, k }, m)),
    }
}

pub fn f32(m: usize, n: usize, k: usize) -> Case {
    let mut random = Random::new((m + n + k) as u64);
    let (x, w) = (random.values(m * k), random.values(n * k));
    Case {
        name: format!("f32 product {m} {n} {k}"),
        specified: specified_product(&x, Matrix::F32 { values: &w, n, k }, m),
        exact: exact_product(&x, |i| f64::from(w[i]), m, n, k),
        bound: 1e-6,
        run: Box::new(move |device| device.product(&x, Matrix::F32 { values: &w, n, k }, m)),
    }
}

/// Every third row of a larger matrix, of whatever values the bytes have.
pub fn mxfp4(inputs: Inputs, m: usize, n: usize, k: usize) -> Case {
    let mut random = Random::new((m * 5 + n * 11 + k) as u64);
    let (first, step, groups) = (2, 3, k / mxfp4::GROUP);
    let rows = first + n * step;
    let x = inputs.of(random.values(m * k));
    let blocks: Vec<u8> = (0..rows * k / 2).map(|_| random.bits() as u8).collect();
    let scales: Vec<u8> = (0..rows * groups).map(|_| 120 + random.bits() as u8 % 12).collect();
    fn view<'a>(blocks: &'a [u8], scales: &'a [u8], [n, k]: [usize; 2]) -> Matrix<'a> {
        Matrix::Mxfp4(Mxfp4View { blocks, scales, n, k, first: 2, step: 3 })
    }
    let value = |i: usize| {
        let (row, l) = (first + i / k * step, i % k);
        let bits = blocks[(row * k + l) / 2] >> (l % 2 * 4) & 15;
        let size = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][usize::from(bits & 7)];
        let scale = f64::from(scales[row * groups + l / mxfp4::GROUP]) - 127.0;
        (if bits & 8 == 0 { size } else { -size }) * scale.exp2()
    };
    Case {
        name: format!("mxfp4 product {m} {n} {k}"),
        specified: specified_product(&x, view(&blocks, &scales, [n, k]), m),
        exact: exact_product(&x, value, m, n, k),
        bound: 1e-6,
        run: Box::new(move |device| device.product(&x, view(&blocks, &scales, [n, k]), m)),
    }
}

/// Exact is the product of the f32 activations: the bound is what quantizing them adds (a few sums may cancel). Who reads
/// bf16 does not quantize them.
pub fn int8(inputs: Inputs, m: usize, n: usize, k: usize) -> Case {
    let mut random = Random::new((m * 7 + n * 3 + k) as u64);
    let x = inputs.of(random.values(m * k));
    let mut values: Vec<i8> = (0..n * k).map(|_| random.bits() as i8).collect();
    values[0] = i8::MIN; // outside our quantizer's range, but defined
    let scales: Vec<f32> = random.values(n * k.div_ceil(GROUP)).iter().map(|s| s.abs() / 127.0).collect();
    let weight =
        |i: usize| f64::from(values[i]) * f64::from(scales[i / k * k.div_ceil(GROUP) + i % k / GROUP]);
    Case {
        name: format!("int8 product {m} {n} {k}"),
        specified: specified_product(
            &x,
            Matrix::Int8(Int8View { values: &values, scales: &scales, n, k }),
            m,
        ),
        exact: exact_product(&x, weight, m, n, k),
        bound: match inputs {
            Inputs::F32 => {
                if m * n < 100 {
                    5e-2
                } else {
                    1e-2
                }
            }
            Inputs::Bf16 => 1e-6,
        },
        run: Box::new(move |device| {
            let w = Int8View { values: &values, scales: &scales, n, k };
            device.product(&x, Matrix::Int8(w), m)
        }),
    }
}

/// What the jobs of [`grouped`] read.
struct Group {
    x: Vec<f32>,
    x8: Vec<f32>,
    w: Vec<bf16>,
    w32: Vec<f32>,
    w8: Int8,
}

impl Group {
    const K: usize = 96;
    const K8: usize = 130;

    fn products(&self) -> [(&[f32], Matrix<'_>, usize); 7] {
        let (k, k8) = (Self::K, Self::K8);
        let narrow = Matrix::Bf16 { values: &self.w[..24 * k], n: 24, k };
        let wide = Matrix::Bf16 { values: &self.w, n: 40, k };
        [
            (&self.x[..k], wide, 1),
            (&self.x[k..], narrow, 8),
            (&[], wide, 0),
            (&self.x, Matrix::F32 { values: &self.w32, n: 8, k }, 9),
            (&self.x8, Matrix::Int8(self.w8.view()), 5),
            (&self.x8[..k8], Matrix::Int8(self.w8.view()), 1),
            (&self.x8, Matrix::Int8(self.w8.view()), 5),
        ]
    }
}

/// Jobs of several shapes and kinds in one run, one without rows, two on the same rows.
pub fn grouped() -> Case {
    let mut random = Random::new(11);
    let group = Group {
        x: random.values(9 * Group::K),
        x8: random.values(5 * Group::K8),
        w: random.bf16s(40 * Group::K),
        w32: random.values(8 * Group::K),
        w8: Int8::quantize_bf16(&Pool::new(1), &random.bf16s(50 * Group::K8), 50, Group::K8),
    };
    let specified: Vec<f32> =
        group.products().into_iter().flat_map(|(x, w, m)| specified_product(x, w, m)).collect();
    Case {
        name: "grouped products".into(),
        exact: specified.iter().map(|out| f64::from(*out)).collect(),
        bound: 0.0,
        run: Box::new({
            let length = specified.len();
            move |device| {
                let pool = device.cpu()?;
                let mut all = vec![f32::NAN; length];
                let mut rest = &mut all[..];
                let mut jobs = Vec::new();
                for (x, w, m) in group.products() {
                    let (out, others) = rest.split_at_mut(m * w.n());
                    rest = others;
                    jobs.push(Job { out, x, w, m });
                }
                matmul::grouped(pool, &mut jobs);
                Some((all, 0.0))
            }
        }),
        specified,
    }
}

/// Exact is the original: the bound is half a step of 127 at a group's maximum of about 2.5 deviations.
pub fn quantize(n: usize, k: usize) -> Case {
    let mut w = Random::new((n * k) as u64).bf16s(n * k);
    if k > GROUP {
        w[..GROUP].fill(bf16::ZERO);
    }
    let wide: Vec<f32> = w.iter().map(|w| w.to_f32()).collect();
    let (mut values, mut scales) = (vec![0; n * k], vec![0.0; n * k.div_ceil(GROUP)]);
    quant::reference(&wide, k, &mut values, &mut scales);
    let dequantized = move |values: &[i8], scales: &[f32]| -> Vec<f32> {
        let scale = |i: usize| scales[i / k * k.div_ceil(GROUP) + i % k / GROUP];
        values.iter().enumerate().map(|(i, value)| f32::from(*value) * scale(i)).collect()
    };
    Case {
        name: format!("quantize {n} {k}"),
        specified: dequantized(&values, &scales),
        exact: wide.iter().map(|w| f64::from(*w)).collect(),
        bound: 1e-2,
        run: Box::new(move |device| {
            let int8 = Int8::quantize_bf16(device.cpu()?, &w, n, k);
            assert_eq!(size_of_val(&*int8.values) + size_of_val(&*int8.scales), Int8::bytes_for(n, k));
            assert_eq!(int8.values, values);
            Some((dequantized(&int8.values, &int8.scales), 0.0))
        }),
    }
}
