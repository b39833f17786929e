//! Rotary embeddings by a table in the device's memory.

use super::Cuda;
use super::batch::CudaBatch;
use super::memory::{CudaTensor, Spare};
use crate::model::config::rope::{Pairs, RopePlan};
use coterie_kernels::cpu::rope::Table;
use coterie_kernels::cuda::device::{Device, Memory};
use coterie_kernels::cuda::launch::Address;
use coterie_kernels::cuda::rotary::Rotary;
use std::cell::RefCell;
use std::rc::Rc;

/// Positions that a table has from the start.
const FIRST_POSITIONS: usize = 4096;

/// The angles of a rotary embedding. The table grows to the largest position seen, by doubling.
pub struct CudaRope<D: Device> {
    frequencies: Vec<f32>,
    amplitude: f32,
    pairs: Pairs,
    head_dim: usize,
    /// The last is the largest. Those before are kept as graphs may have recorded them; together they are no larger than it.
    tables: RefCell<Vec<Angles<D>>>,
}

/// Cosines `[positions, half]`, then sines.
struct Angles<D: Device> {
    positions: usize,
    memory: Memory<D>,
}

impl<D: Device> Angles<D> {
    fn new(frequencies: &[f32], amplitude: f32, positions: usize, spare: &Rc<Spare<D>>) -> Self {
        let table = Table::new(frequencies, amplitude, positions);
        Angles { positions, memory: spare.lasting(&table.values().concat()) }
    }
}

impl<D: Device> CudaRope<D> {
    pub(super) fn new(plan: &RopePlan, head_dim: usize, spare: &Rc<Spare<D>>) -> Self {
        let (frequencies, amplitude) = (plan.frequencies(), plan.amplitude());
        let first = Angles::new(&frequencies, amplitude, FIRST_POSITIONS, spare);
        CudaRope { frequencies, amplitude, pairs: plan.pairs, head_dim, tables: RefCell::new(vec![first]) }
    }
}

impl<D: Device> Cuda<D> {
    pub(super) fn turn(&self, x: &mut CudaTensor<D>, rope: &CudaRope<D>, batch: &CudaBatch<D>) {
        let mut tables = rope.tables.borrow_mut();
        if tables.iter().all(|table| table.positions < batch.positions) {
            let positions = batch.positions.next_power_of_two();
            tables.push(Angles::new(&rope.frequencies, rope.amplitude, positions, &self.spare));
        }
        let table = &tables[tables.len() - 1];
        let half = rope.frequencies.len();
        let cosines = table.memory.address();
        let rotary = Rotary {
            x: x.address_mut(),
            cosines,
            sines: cosines + (table.positions * half * size_of::<f32>()) as Address,
            positions: batch.row_positions,
            rows: x.rows as u32,
            heads: (x.width / rope.head_dim) as u32,
            head_dim: rope.head_dim as u32,
            half: half as u32,
        };
        self.launch(&rotary.launch(rope.pairs == Pairs::Neighbours));
    }
}
