//! A storage that holds nothing and counts: what loading a model would take.

use crate::load_error::LoadError;
use crate::weights::written::Written;
use crate::weights::{Role, Storage};
use coterie_api::launch::{Quantization, WeightBytes};
use coterie_kernels::cpu::int4;
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
    /// Bytes held with [`Quantization::Int4`].
    pub int4_bytes: Cell<u64>,
    /// Those of experts.
    pub expert_int4_bytes: Cell<u64>,
}

fn add(cell: &Cell<u64>, count: usize) {
    cell.set(cell.get() + count as u64);
}

/// Bytes of a matrix as it is held without quantization: f32 and MXFP4 stay, all else is bf16.
fn plain_bytes(written: &Written) -> usize {
    match written {
        Written::Mxfp4(packed) => packed.bytes(),
        _ if written.is_f32() => written.values() * size_of::<f32>(),
        _ => written.values() * size_of::<half::bf16>(),
    }
}

impl Storage for Tally {
    type Matrix = ();
    type Vector = ();

    fn matrix(&self, written: Written, role: Role, _: Quantization) -> Result<(), LoadError> {
        let (plain, [outputs, inputs]) = (plain_bytes(&written), written.shape());
        let quantized = match role {
            Role::Kept | Role::Gate => [plain; 2],
            Role::Dense | Role::Expert => {
                [Int8::bytes_for(outputs, inputs), int4::bytes_for(outputs, inputs)]
            }
        };
        self.add(role, outputs * inputs, plain, quantized);
        Ok(())
    }

    fn vector(&self, written: Written, role: Role) -> Result<(), LoadError> {
        let bytes = written.values() * size_of::<f32>();
        self.add(role, written.values(), bytes, [bytes; 2]);
        Ok(())
    }
}

impl Tally {
    /// Bytes in all as they would be held so, and those of experts among them.
    pub fn held(&self, quantization: Quantization) -> [usize; 2] {
        let cells = match quantization {
            Quantization::None => [&self.bytes, &self.expert_bytes],
            Quantization::Int8 => [&self.int8_bytes, &self.expert_int8_bytes],
            Quantization::Int4 => [&self.int4_bytes, &self.expert_int4_bytes],
        };
        cells.map(|cell| cell.get() as usize)
    }

    /// Bytes in all, by how they would be held.
    pub fn weight_bytes(&self) -> WeightBytes {
        let [none, int8, int4] = [&self.bytes, &self.int8_bytes, &self.int4_bytes].map(Cell::get);
        WeightBytes { none, int8, int4: Some(int4) }
    }

    /// Those of experts among them.
    pub fn expert_weight_bytes(&self) -> WeightBytes {
        let cells = [&self.expert_bytes, &self.expert_int8_bytes, &self.expert_int4_bytes];
        let [none, int8, int4] = cells.map(Cell::get);
        WeightBytes { none, int8, int4: Some(int4) }
    }

    fn add(&self, role: Role, values: usize, plain: usize, [int8, int4]: [usize; 2]) {
        add(&self.values, values);
        add(&self.bytes, plain);
        add(&self.int8_bytes, int8);
        add(&self.int4_bytes, int4);
        if role == Role::Expert {
            add(&self.expert_values, values);
            add(&self.expert_bytes, plain);
            add(&self.expert_int8_bytes, int8);
            add(&self.expert_int4_bytes, int4);
        }
    }
}
