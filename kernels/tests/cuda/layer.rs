//! A whole MoE layer in every format of weights, from the experts' choice to the sum for each token, beside f64.

use coterie_kernels::cuda::matmul::Format;
use coterie_kernels::cuda::rows::Dispatch;
use half::bf16;

use super::checks;
use super::experts::{Experts, Weights};
use super::machine::Machine;
use super::memory::Memory;
use crate::ops::device::Device;
use crate::ops::random::Random;

/// A matrix in its format, and the numbers that it stands for.
pub struct Known {
    pub weights: Weights,
    pub values: Vec<f64>,
}

/// Random bytes and scales of blocks `[rows, group]`.
pub fn known(random: &mut Random, format: Format, n: usize, k: usize, [rows, group]: [usize; 2]) -> Known {
    let groups = k.div_ceil(group);
    let scales: Vec<f32> =
        (0..n.div_ceil(rows) * groups).map(|_| 0.02 + random.value().abs() * 0.05).collect();
    let scale = |i: usize| f64::from(scales[i / k / rows * groups + i % k / group]);
    let codes: Vec<u8> = (0..n * k).map(|_| random.bits() as u8).collect();
    let nibble = |i: usize| codes[i / 2] >> (i % 2 * 4) & 15;
    let value = |i: usize| match format {
        Format::Bf16 => f64::from(f32::from(codes[i] as i8)) / 64.0,
        Format::Int8 => f64::from(codes[i] as i8) * scale(i) / 64.0,
        Format::Int4 => (f64::from(nibble(i)) - 8.0) * scale(i),
        Format::Fp8 => f64::from(coterie_kernels::cpu::fp8::widen(codes[i] & 0xbf)) * scale(i),
        Format::Mxfp4 => {
            let size = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][usize::from(nibble(i) & 7)];
            (if nibble(i) < 8 { size } else { -size }) / f64::from(8u32 << (i % k / group % 3))
        }
    };
    let values: Vec<f64> = (0..n * k).map(value).collect();
    let size = [n, k];
    let weights = match format {
        Format::Bf16 => {
            let values: Vec<bf16> = values.iter().map(|x| bf16::from_f64(*x)).collect();
            Weights::new(format, size, &values, &[], [1, k])
        }
        Format::Int8 => {
            let scales: Vec<f32> = scales.iter().map(|scale| scale / 64.0).collect();
            Weights::new(format, size, &codes, &scales, [rows, group])
        }
        Format::Int4 => Weights::new(format, size, &codes[..n * k / 2], &scales, [rows, group]),
        Format::Fp8 => {
            // Exponents below 8: no NaN, and numbers of about one size.
            let codes: Vec<u8> = codes.iter().map(|code| code & 0xbf).collect();
            Weights::new(format, size, &codes, &scales, [rows, group])
        }
        Format::Mxfp4 => {
            let exponents: Vec<u8> = (0..n * groups).map(|i| 124 - (i % groups % 3) as u8).collect();
            Weights::of_exponents(size, &codes[..n * k / 2], &exponents)
        }
    };
    Known { weights, values }
}

fn dot(x: &[f64], w: &[f64]) -> f64 {
    x.iter().zip(w).map(|(x, w)| x * w).sum()
}

/// The formats, and which values share a scale.
const FORMATS: [(Format, [usize; 2]); 8] = [
    (Format::Bf16, [1, 96]),
    (Format::Int8, [1, 64]),
    (Format::Int4, [1, 32]),
    (Format::Int4, [1, 128]),
    (Format::Fp8, [128, 128]),
    (Format::Fp8, [1 << 20, 1 << 20]),
    (Format::Fp8, [1, 32]),
    (Format::Mxfp4, [1, 32]),
];

/// Tokens, experts, experts of a token, width, width within.
const SIZES: [[usize; 5]; 3] = [[1, 8, 2, 96, 64], [5, 3, 2, 160, 160], [60, 9, 4, 64, 96]];

pub fn of_every_format_are_close_to_the_exact_result(device: &Machine) {
    for (format, blocks) in FORMATS {
        for (size, clamped) in SIZES.into_iter().zip([None, Some([1.7, 2.5]), None]) {
            layer(device, format, blocks, size, clamped);
        }
    }
}

fn layer(device: &Machine, format: Format, blocks: [usize; 2], size: [usize; 5], clamped: Option<[f32; 2]>) {
    let [tokens, experts, per_token, width, within] = size;
    let mut random = Random::new((width + tokens) as u64);
    // A group is at most a row, and a block at most the matrix.
    let blocks = |n: usize, k: usize| [blocks[0].min(n), blocks[1].min(k)];
    let mut matrices = |n: usize, k: usize, count: usize| -> Vec<Known> {
        (0..count).map(|_| known(&mut random, format, n, k, blocks(n, k))).collect()
    };
    let (up, down) = (matrices(within, width, 2 * experts), matrices(width, within, experts));
    let biases: Vec<Vec<f32>> = (0..2 * experts).map(|_| random.values(within)).collect();
    let x: Vec<bf16> = random.bf16s(tokens * width);
    let ids: Vec<u32> = (0..tokens)
        .flat_map(|token| {
            // Expert 0 is most loved, the last is left alone.
            let others = random.permutation(experts - 1);
            let mut chosen = vec![if token % 3 == 0 { 0 } else { others[0] }];
            chosen.extend(
                others.into_iter().filter(|id| *id != chosen[0]).take(per_token - 1).collect::<Vec<_>>(),
            );
            chosen
        })
        .collect();
    let weights = random.values(tokens * per_token);

    let [offsets, order, places] = device.dispatch(&ids, per_token, experts);
    let bias_memory: Vec<Memory<f32>> = biases.iter().map(|bias| Memory::of(bias)).collect();
    let inner = device.pairs(&Experts {
        x: &x,
        rows: ids.len(),
        order: Some(&order),
        offsets: Some(&offsets),
        weights: up.iter().map(|known| &known.weights).collect(),
        biases: &bias_memory,
        clamped,
    });
    let outer = device.experts(&Experts {
        x: &inner,
        rows: ids.len(),
        order: None,
        offsets: Some(&offsets),
        weights: down.iter().map(|known| &known.weights).collect(),
        biases: &[],
        clamped: None,
    });
    let (got, _) =
        device.combine(&outer.values(), &places, &weights, per_token, width).expect("combine is there");

    let activation = |gate: f64, up: f64| match clamped {
        None => gate / (1.0 + (-gate).exp()) * up,
        Some([alpha, limit]) => {
            let (gate, up) = (gate.min(limit.into()), up.clamp((-limit).into(), limit.into()));
            (up + 1.0) * gate / (1.0 + (-f64::from(alpha) * gate).exp())
        }
    };
    let mut exact = Vec::new();
    for token in 0..tokens {
        let x: Vec<f64> = x[token * width..][..width].iter().map(|x| x.to_f64()).collect();
        let mut sum = vec![0.0; width];
        for choice in token * per_token..(token + 1) * per_token {
            let expert = ids[choice] as usize;
            let half = |of: usize, i: usize| {
                dot(&x, &up[of].values[i * width..][..width]) + f64::from(biases[of][i])
            };
            let inner = (0..within).map(|i| activation(half(expert, i), half(experts + expert, i)));
            // Between its two products a row is of bf16.
            let inner: Vec<f64> = inner.map(|x| bf16::from_f64(x).to_f64()).collect();
            for (i, sum) in sum.iter_mut().enumerate() {
                *sum +=
                    f64::from(weights[choice]) * dot(&inner, &down[expert].values[i * within..][..within]);
            }
        }
        exact.extend(sum);
    }
    let error = checks::error(&got, &exact);
    // A sum beside the middle of two bf16 may be rounded to the other.
    assert!(
        error < 3e-4,
        "{format:?} {blocks:?} {size:?}: error {error:.2e}",
        blocks = blocks(within, width)
    );
}

impl Machine {
    /// Where each expert's rows begin, the token of each row, and the row of each choice.
    fn dispatch(&self, ids: &[u32], per_token: usize, experts: usize) -> [Vec<u32>; 3] {
        let memory = Memory::of(ids);
        let [offsets, order, places] =
            [experts + 1, ids.len(), ids.len()].map(|length| Memory::of(&vec![u32::MAX; length]));
        let dispatch = Dispatch {
            ids: memory.address(),
            offsets: offsets.address(),
            order: order.address(),
            places: places.address(),
            choices: ids.len() as u32,
            per_token: per_token as u32,
            experts: experts as u32,
        };
        self.launch(&dispatch.launch());
        let got = [offsets, order, places].map(|memory| memory.values());
        let mut choices: Vec<usize> = (0..ids.len()).collect();
        choices.sort_by_key(|choice| ids[*choice]);
        let tokens: Vec<u32> = choices.iter().map(|choice| (choice / per_token) as u32).collect();
        assert_eq!(got[1], tokens, "rows are ordered by experts, those of one as they came");
        assert!(
            choices.iter().enumerate().all(|(row, choice)| got[2][*choice] as usize == row),
            "places are rows"
        );
        let before = |expert: usize| ids.iter().filter(|id| (**id as usize) < expert).count() as u32;
        assert!((0..=experts).all(|expert| got[0][expert] == before(expert)), "offsets count experts' rows");
        got
    }
}
