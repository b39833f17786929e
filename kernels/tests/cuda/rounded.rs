//! Kernels that write bf16, or read it, beside those that the list of cases has: the same numbers, rounded once.

use coterie_kernels::cuda::elements::{Elements, Op};
use coterie_kernels::cuda::norm::Norm;
use coterie_kernels::cuda::rows::{Gather, Narrow};
use half::bf16;

use super::device::unwritten;
use super::machine::Machine;
use super::memory::Memory;
use crate::ops::device::Device;
use crate::ops::random::Random;

fn rounded(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|x| bf16::from_f32(*x)).collect()
}

fn nothing(length: usize) -> Memory<bf16> {
    Memory::of(&vec![bf16::NAN; length])
}

pub fn what_is_written_is_the_f32_result_rounded(device: &Machine) {
    for (rows, width) in [(3, 20), (3, 21), (2, 1536), (1, 16_384)] {
        norms(device, rows, width);
    }
    elements(device);
    lookups(device);
    for (rows, width, padded) in [(3, 30, 32), (1, 1, 32), (2, 1500, 1504), (2, 64, 64)] {
        narrowed(device, rows, width, padded);
    }
}

/// With a residual, x is added to it, and the sum stays.
fn norms(device: &Machine, rows: usize, width: usize) {
    let mut random = Random::new(width as u64);
    let (x, residual, weight) =
        (random.values(rows * width), random.values(rows * width), random.values(width));
    let sum: Vec<f32> = x.iter().zip(&residual).map(|(x, y)| x + y).collect();
    let (x, residual, weight_memory) = (Memory::of(&x), Memory::of(&residual), Memory::of(&weight));
    let out = nothing(rows * width);
    let norm = Norm {
        x: x.address(),
        weight: weight_memory.address(),
        residual: residual.address(),
        out: out.address(),
        width: width as u32,
        eps: 1e-5,
    };
    device.launch(&norm.launch(rows as u32, true));
    let (expected, _) = device.rms_norm(&sum, &weight, 1e-5).expect("there is a norm of f32");
    assert_eq!(out.values(), rounded(&expected), "norm of {rows} rows of {width}");
    assert_eq!(residual.values(), sum, "the sum stays");
}

fn elements(device: &Machine) {
    let mut random = Random::new(4);
    let (a, b) = (random.values(1003), random.values(1003));
    let run = |op: Op| {
        let (a, b, out) = (Memory::of(&a), Memory::of(&b), nothing(a.len()));
        let elements = Elements {
            a: a.address(),
            b: b.address(),
            out: out.address(),
            count: 1003,
            width: 0,
            alpha: 1.7,
            beta: 0.9,
        };
        device.launch(&elements.launch(op));
        out.values()
    };
    let [silu, swiglu] = [device.silu_mul(&a, &b), device.clamped_swiglu(&a, &b, 1.7, 0.9)];
    assert_eq!(Some(run(Op::SiluMulBf16)), silu.map(|(x, _)| rounded(&x)));
    assert_eq!(Some(run(Op::ClampedSwigluBf16)), swiglu.map(|(x, _)| rounded(&x)));
}

/// An embedding's rows are widened.
fn lookups(device: &Machine) {
    let (width, tokens) = (300, [7u32, 0, 7, 19]);
    let table = Random::new(5).bf16s(20 * width);
    let (table_memory, rows, out) =
        (Memory::of(&table), Memory::of(&tokens), unwritten(tokens.len() * width));
    let gather = Gather {
        x: table_memory.address(),
        rows: rows.address(),
        out: out.address(),
        stride: width as u32,
        width: width as u32,
    };
    device.launch(&gather.launch(tokens.len() as u32, true));
    let expected = tokens.iter().flat_map(|token| &table[*token as usize * width..][..width]);
    assert!(out.values().iter().zip(expected).all(|(a, b)| *a == b.to_f32()), "rows of the table");
}

/// Rows as products read them.
fn narrowed(device: &Machine, rows: usize, width: usize, padded: usize) {
    let x = Random::new(6).values(rows * width);
    let (x_memory, out) = (Memory::of(&x), nothing(rows * padded));
    let narrow =
        Narrow { x: x_memory.address(), out: out.address(), width: width as u32, padded: padded as u32 };
    device.launch(&narrow.launch(rows as u32));
    for (row, x) in out.values().chunks(padded).zip(x.chunks(width)) {
        assert_eq!(row[..width], rounded(x), "{rows} rows of {width}");
        assert!(row[width..].iter().all(|x| x.to_bits() == 0), "zeros behind a row of {width}");
    }
}
