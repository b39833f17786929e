//! Weights as the device holds them.

use crate::{emulated, tiny_mixtral};
use coterie_api::launch::{Activations, Quantization};
use coterie_engine::backend::Backend;
use coterie_engine::backend::cpu::Cpu;
use coterie_engine::backend::cuda::Cuda;
use coterie_engine::weights::shard::Checkpoint;
use coterie_engine::weights::written::Written;
use coterie_engine::weights::{Role, Storage, Tensors};
use half::bf16;

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
