//! Weights as the device holds them.

use crate::{emulated, tiny_mixtral};
use coterie_api::launch::{Activations, Quantization};
use coterie_engine::backend::Backend;
use coterie_engine::backend::cpu::Cpu;
use coterie_engine::backend::cuda::Cuda;
use coterie_engine::weights::shard::Checkpoint;
use coterie_engine::weights::untrained::Untrained;
use coterie_engine::weights::written::Written;
use coterie_engine::weights::{Role, Storage, Tensors};
use coterie_kernels::cpu::pool::Pool;
use coterie_kernels::cpu::{int4, quant};
use half::bf16;

/// Rows of `width` values in bf16, and the same as f64.
fn rows(count: usize, width: usize) -> (Vec<u8>, Vec<f64>) {
    let values = (0..count * width).map(|i| bf16::from_f32((i * 37 % 101) as f32 / 64.0 - 0.75));
    values.map(|x| (x.to_le_bytes(), x.to_f64())).map(|(bytes, x)| (bytes.to_vec(), x)).fold(
        (Vec::new(), Vec::new()),
        |(mut bytes, mut all), (two, x)| {
            bytes.extend(two);
            all.push(x);
            (bytes, all)
        },
    )
}

/// Each value as int8 or int4 hold it, by the CPU's specification.
fn held_as(quantization: Quantization, x: &[f32], k: usize) -> Vec<f64> {
    let n = x.len() / k;
    let group = if quantization == Quantization::Int8 { quant::GROUP } else { int4::GROUP };
    let groups = k.div_ceil(group);
    let mut scales = vec![0.0; n * groups];
    let mut codes = vec![0i8; n * k];
    if quantization == Quantization::Int8 {
        quant::reference(x, k, &mut codes, &mut scales);
    } else {
        let padded = groups * group;
        let mut pairs = vec![0u8; n * padded / 2];
        int4::reference(x, k, &mut pairs, &mut scales);
        for (i, code) in codes.iter_mut().enumerate() {
            let at = i / k * padded + i % k;
            *code = (pairs[at / 2] >> (at % 2 * 4) & 15) as i8 - 8;
        }
    }
    let value = |i: usize| f64::from(codes[i]) * f64::from(scales[i / k * groups + i % k / group]);
    (0..n * k).map(value).collect()
}

/// Matrices of these formats and sizes, one of them longer than what is quantized at once, others of rows that are not whole
/// groups or not aligned; and one that no file has.
#[test]
fn weights_are_quantized_on_their_way_as_on_the_cpu() {
    let shapes =
        [("BF16", [70, 96]), ("BF16", [9, 100]), ("F16", [20, 72]), ("F32", [5, 33]), ("BF16", [1100, 4096])];
    let (dir, mut state) = (tempfile::tempdir().unwrap(), 9);
    let tensors = shapes.iter().enumerate().map(|(number, (dtype, shape))| {
        let values = (0..shape[0] * shape[1]).map(|_| tiny_mixtral::random(&mut state) - 0.5);
        let bytes = match *dtype {
            "BF16" => values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
            "F16" => values.flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
            _ => values.flat_map(f32::to_le_bytes).collect(),
        };
        tiny_mixtral::Tensor { name: format!("w{number}"), dtype, shape: shape.to_vec(), bytes }
    });
    tiny_mixtral::write(dir.path(), &serde_json::json!({}), &tensors.collect::<Vec<_>>());
    let (files, untrained) = (Checkpoint::open(dir.path()).unwrap(), Untrained::new(dir.path()).unwrap());
    let cuda = emulated::backend()(2);
    let written = |number: usize| match shapes.get(number) {
        Some((_, shape)) => files.tensor(&format!("w{number}"), shape).unwrap(),
        None => untrained.tensor("w", &[40, 160]).unwrap().rows(7..30, &[23, 160]),
    };
    for number in 0..=shapes.len() {
        let written = Written::Rows(written(number));
        let [n, k] = written.shape();
        let wide: Vec<f32> = written.to_bf16(&Pool::new(1)).iter().map(|x| x.to_f32()).collect();
        let (x_bytes, x) = rows(2, k);
        let x_device = cuda.decode(Activations::Bf16, &x_bytes, k);
        for quantization in [Quantization::None, Quantization::Int8, Quantization::Int4] {
            let values = match quantization {
                Quantization::None => wide.iter().map(|x| f64::from(*x)).collect(),
                _ => held_as(quantization, &wide, k),
            };
            let held = cuda.matrix(written.clone(), Role::Expert, quantization).unwrap();
            let [got] = cuda.matmul(&x_device, [&held]);
            for row in 0..2 {
                let mut out = Vec::new();
                cuda.copy_row(&got, row, &mut out);
                for (output, got) in out.iter().enumerate() {
                    let products = x[row * k..][..k].iter().zip(&values[output * k..][..k]);
                    let (exact, size) =
                        products.fold((0.0, 0.0), |(sum, size), (x, w)| (sum + x * w, size + (x * w).abs()));
                    let error = (f64::from(*got) - exact).abs();
                    assert!(
                        error < 1e-6 * size,
                        "{n} × {k} as {quantization}, row {row}, output {output}: {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_file_that_was_cut_short_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = vec![0; 64 * 64 * 2];
    let tensor = tiny_mixtral::Tensor { name: "w".to_owned(), dtype: "BF16", shape: vec![64, 64], bytes };
    tiny_mixtral::write(dir.path(), &serde_json::json!({}), &[tensor]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let file = dir.path().join("model.safetensors");
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(4000).unwrap();
    for quantization in [Quantization::None, Quantization::Int4] {
        let written = Written::Rows(checkpoint.tensor("w", &[64, 64]).unwrap());
        let error = emulated::backend()(2).matrix(written, Role::Dense, quantization).err().unwrap();
        assert!(error.to_string().contains("model.safetensors cannot be read"), "{error}");
    }
}

/// Codes without a NaN, and a scale for each block of 32 × 32.
fn fp8_of([rows, columns]: [usize; 2]) -> tempfile::TempDir {
    let (dir, mut state) = (tempfile::tempdir().unwrap(), 4);
    let codes = (0..rows * columns).map(|_| (tiny_mixtral::random(&mut state) * 256.0) as u8);
    let codes = codes.map(|code| if code & 0x7f == 0x7f { 1 } else { code }).collect();
    let blocks = [rows.div_ceil(32), columns.div_ceil(32)];
    let scales = (0..blocks[0] * blocks[1]).flat_map(|_| tiny_mixtral::random(&mut state).to_le_bytes());
    let tensor = |name: &str, dtype, shape: [usize; 2], bytes| tiny_mixtral::Tensor {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        bytes,
    };
    let tensors = [
        tensor("w", "F8_E4M3", [rows, columns], codes),
        tensor("w_scale_inv", "F32", blocks, scales.collect()),
    ];
    let config = serde_json::json!({"quantization_config": {"weight_block_size": [32, 32]}});
    tiny_mixtral::write(dir.path(), &config, &tensors);
    dir
}

#[test]
fn fp8_stays_as_it_is_from_where_a_block_begins() {
    let shape @ [rows, columns] = [70, 96];
    let dir = fp8_of(shape);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let (cuda, cpu) = (emulated::backend()(1), Cpu::new(1));
    let x: Vec<u8> =
        (0..3 * columns).flat_map(|i| bf16::from_f32(i as f32 / 64.0 - 2.0).to_le_bytes()).collect();
    for (part, stays) in [(0..rows, true), (32..rows, true), (8..40, false)] {
        let view = checkpoint.tensor("w", &shape).unwrap().rows(part.clone(), &[part.len(), columns]);
        let written = Written::Rows(view);
        let values = written.values();
        let held = cuda.matrix(written.clone(), Role::Dense, Quantization::None).unwrap();
        assert_eq!(Cuda::bytes(&held) < 2 * values, stays, "rows {part:?}");
        let wide = cpu.matrix(written, Role::Dense, Quantization::None).unwrap();
        let [got] = cuda.matmul(&cuda.decode(Activations::Bf16, &x, columns), [&held]);
        let [expected] = cpu.matmul(&cpu.decode(Activations::Bf16, &x, columns), [&wide]);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for row in 0..3 {
            cuda.copy_row(&got, row, &mut ours);
            cpu.copy_row(&expected, row, &mut theirs);
            let error: f32 = ours.iter().zip(&theirs).map(|(a, b)| (a - b).powi(2)).sum();
            let size: f32 = theirs.iter().map(|b| b * b).sum();
            // There code times scale is rounded to bf16, here it is not.
            assert!(error.sqrt() < 4e-3 * size.sqrt(), "rows {part:?}: {error} of {size}");
        }
    }
}
