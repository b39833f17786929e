//! Weights that the device quantizes, or makes: bit for bit what the CPU's specification says.

use coterie_kernels::cpu::pool::Pool;
use coterie_kernels::cpu::quant::Int8;
use coterie_kernels::cpu::{int4, quant, random};
use coterie_kernels::cuda::matmul::Format;
use coterie_kernels::cuda::quantize::Quantize;
use half::bf16;

use super::machine::Machine;
use super::memory::Memory;
use crate::ops::random::Random;

/// Rows and widths: whole groups, rows that are aligned and rows that are not, less than a group, several blocks of threads.
const SIZES: [[usize; 2]; 7] = [[1, 64], [3, 96], [5, 200], [2, 7], [4, 33], [3, 1001], [2, 2880]];

pub fn weights_are_as_on_the_cpu(device: &Machine) {
    for [rows, k] in SIZES {
        for (kind, x) in cases(rows, k) {
            int8(device, kind, &x, k);
            int4_codes(device, kind, &x, k);
        }
    }
    made(device);
}

fn cases(rows: usize, k: usize) -> Vec<(&'static str, Vec<bf16>)> {
    let mut random = Random::new((rows * k) as u64);
    let mut of = |kind, value: fn(&mut Random, usize) -> f32| {
        (kind, (0..rows * k).map(|i| bf16::from_f32(value(&mut random, i))).collect())
    };
    vec![
        of("random", |random, _| random.value()),
        of("of every size", |random, _| random.value() * 2f32.powi(random.bits() as i32 % 100)),
        of("any bits but those of no number", |random, _| {
            let value = bf16::from_bits(random.bits() as u16).to_f32();
            if value.is_finite() { value } else { 0.5 }
        }),
        of("denormal", |random, _| bf16::from_bits((random.bits() & 0x807f) as u16).to_f32()),
        of("about the least that counts", |random, _| random.value() * 1.5e-30),
        of("zeros", |_, i| if i % 3 == 0 { -0.0 } else { 0.0 }),
        // With the largest at 127, and at 8, steps are whole, and these lie in the middle of two.
        of("ties", |random, i| match i % 32 {
            0 => 127.0,
            _ => (random.bits() % 200) as f32 / 2.0 - 50.0,
        }),
        of("ties of int4", |random, i| match i % 32 {
            0 => [8.0, -8.0][i / 32 % 2],
            _ => (random.bits() % 33) as f32 / 2.0 - 8.0,
        }),
        of("alike", |_, _| -3.0),
        of("the largest there are", |random, _| if random.bits() % 2 == 0 { f32::MAX } else { -3.3e38 }),
    ]
    .into_iter()
    .map(|(kind, x): (_, Vec<bf16>)| {
        let finite = |x: &bf16| if x.is_finite() { *x } else { bf16::MAX };
        (kind, x.iter().map(finite).collect())
    })
    .chain([bf16::INFINITY, bf16::NEG_INFINITY, bf16::NAN].map(|broken| {
        let mut x = Random::new(k as u64).bf16s(rows * k);
        x[rows * k / 2] = broken;
        ("broken", x)
    }))
    .collect()
}

/// Codes and scales as the device makes them.
fn run(
    device: &Machine,
    format: Format,
    x: &[bf16],
    k: usize,
    bytes: usize,
    group: usize,
) -> (Vec<u8>, Vec<f32>) {
    let (rows, padded) = (x.len() / k, k.next_multiple_of(32));
    let (x, scales) = (Memory::of(x), Memory::of(&vec![-1f32; rows * k.div_ceil(group)]));
    let values = Memory::of(&vec![0xa5u8; rows * padded * bytes / 8]);
    let quantize = Quantize {
        x: x.address(),
        values: values.address(),
        scales: scales.address(),
        rows: rows as u32,
        k: k as u32,
        padded: padded as u32,
    };
    device.launch(&quantize.launch(format).expect("there is a kernel"));
    (values.values(), scales.values())
}

fn bits(scales: &[f32]) -> Vec<u32> {
    scales.iter().map(|scale| scale.to_bits()).collect()
}

fn int8(device: &Machine, kind: &str, x: &[bf16], k: usize) {
    let (rows, padded) = (x.len() / k, k.next_multiple_of(32));
    let what = format!("int8 of {rows} rows of {k}: {kind}");
    let (got, got_scales) = run(device, Format::Int8, x, k, 8, quant::GROUP);
    let wide: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
    let (mut values, mut scales) = (vec![0; x.len()], vec![0.0; rows * k.div_ceil(quant::GROUP)]);
    quant::reference(&wide, k, &mut values, &mut scales);
    assert_eq!(bits(&got_scales), bits(&scales), "scales of {what}");
    for (got, values) in got.chunks(padded).zip(values.chunks(k)) {
        assert!(got.iter().zip(values).all(|(got, value)| *got as i8 == *value), "codes of {what}");
        assert!(got[k..].iter().all(|got| *got == 0), "zeros behind the rows of {what}");
    }
    if kind != "broken" {
        // What the engine loads onto CPUs.
        let loaded = Int8::quantize_bf16(&Pool::new(1), x, rows, k);
        assert_eq!((loaded.values, bits(&loaded.scales)), (values, bits(&got_scales)), "{what}");
    }
}

fn int4_codes(device: &Machine, kind: &str, x: &[bf16], k: usize) {
    let rows = x.len() / k;
    let groups = rows * k.div_ceil(int4::GROUP);
    let got = run(device, Format::Int4, x, k, 4, int4::GROUP);
    let wide: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
    let (mut codes, mut scales) = (vec![0; groups * int4::GROUP / 2], vec![0.0; groups]);
    int4::reference(&wide, k, &mut codes, &mut scales);
    assert_eq!((got.0, bits(&got.1)), (codes, bits(&scales)), "int4 of {rows} rows of {k}: {kind}");
}

/// Values that follow from their numbers, also where these need more than 32 bits.
fn made(device: &Machine) {
    for (first, count) in [(0, 1), (3, 5000), (1 << 40, 1027)] {
        let out = Memory::of(&vec![bf16::NAN; count]);
        let (seed, scale) = (first * 77 + 5, 1.7e-9);
        let random = coterie_kernels::cuda::random::Random {
            out: out.address(),
            seed,
            first,
            count: count as u64,
            scale,
        };
        device.launch(&random.launch());
        let expected = (first..first + count as u64).map(|number| random::value(seed, number, scale));
        assert!(
            out.values().iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()),
            "from {first} on"
        );
    }
}
