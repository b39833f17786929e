//! A storage that holds nothing and counts: what loading a model would take.

use crate::weights::safetensors::Dtype;
use crate::weights::shard::TensorView;
use crate::weights::{Role, Storage};
use coterie_api::launch::Quantization;
use coterie_kernels::cpu::quant::Int8;
use std::cell::Cell;

/// Sums over the tensors that were loaded into it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Values in all.
    pub values: Cell<u64>,
    /// Values of experts.
    pub expert_values: Cell<u64>,
    /// Bytes held with [`Quantization::None`].
    pub bytes: Cell<u64>,
    /// Those of experts.
    pub expert_bytes: Cell<u64>,
    /// Bytes held with [`Quantization::Int8`].
    pub int8_bytes: Cell<u64>,
    /// Those of experts.
    pub expert_int8_bytes: Cell<u64>,
}

fn add(cell: &Cell<u64>, count: usize) {
    cell.set(cell.get() + count as u64);
}

/// Bytes of a matrix as it is held without quantization: f32 stays, all else is bf16.
fn plain_bytes(view: &TensorView) -> usize {
    match view.dtype() {
        Dtype::F32 => view.values() * size_of::<f32>(),
        _ => view.values() * size_of::<half::bf16>(),
    }
}

impl Storage for Tally {
    type Matrix = ();
    type Vector = ();

    fn matrix(&self, view: TensorView, role: Role, _: Quantization) {
        let plain = plain_bytes(&view);
        add(&self.values, view.values());
        add(&self.bytes, plain);
        let int8 = match role {
            Role::Kept => plain,
            Role::Dense | Role::Expert => Int8::bytes_for(view.shape()[0], view.shape()[1]),
        };
        add(&self.int8_bytes, int8);
        if role == Role::Expert {
            add(&self.expert_values, view.values());
            add(&self.expert_bytes, plain);
            add(&self.expert_int8_bytes, int8);
        }
    }

    fn transposed(&self, view: TensorView) {
        self.matrix(view, Role::Kept, Quantization::None);
    }

    fn vector(&self, view: TensorView) {
        add(&self.values, view.values());
        add(&self.bytes, view.values() * size_of::<f32>());
        add(&self.int8_bytes, view.values() * size_of::<f32>());
    }
}
