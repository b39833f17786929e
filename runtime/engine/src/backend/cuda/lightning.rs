//! Running states of lightning attention.

use super::Cuda;
use super::batch::CudaBatch;
use super::memory::CudaTensor;
use crate::load_error::LoadError;
use crate::model::config::plan::LightningPlan;
use crate::state::StateRoom;
use coterie_kernels::cpu::lightning::{Decays, Shape};
use coterie_kernels::cuda::device::{Device, Memory};
use coterie_kernels::cuda::lightning::{Lightning, MOST};

/// Values of a head are a multiple of this; zeros fill it up.
const STEP: usize = 4;

/// One layer's running states.
pub struct CudaStates<D: Device> {
    heads: usize,
    /// Of a head, and as wide as the kernel takes it.
    widths: [usize; 2],
    sums: Memory<D>,
    tails: Memory<D>,
    snapshots: Memory<D>,
    /// Of each head as [`Decays`] has them.
    decays: Memory<D>,
}

/// Floats of a sequence's state, and of a snapshot.
pub(super) fn floats(plan: &LightningPlan) -> [usize; 2] {
    let shape = Shape { heads: plan.heads(), head_dim: plan.head_dim.next_multiple_of(STEP) };
    [shape.sums_len() + shape.tail_len(), shape.sums_len()]
}

impl<D: Device> Cuda<D> {
    pub(super) fn new_states(
        &self,
        plan: &LightningPlan,
        room: StateRoom,
    ) -> Result<CudaStates<D>, LoadError> {
        let StateRoom { slots, snapshots } = room;
        let (heads, width) = (plan.heads(), plan.head_dim.next_multiple_of(STEP));
        if width > MOST {
            let what = "the width of a head of lightning attention";
            return Err(LoadError::NoKernel { what, found: plan.head_dim, limit: MOST });
        }
        let shape = Shape { heads, head_dim: width };
        let memory = |states: usize, floats: usize| {
            let bytes = states.checked_mul(floats * size_of::<f32>());
            let bytes = bytes.ok_or(LoadError::StatesTooLarge { slots, snapshots })?;
            Ok::<_, LoadError>(Memory::new(&self.device, bytes)?)
        };
        let decays = Decays::new(&plan.slopes);
        let decays: Vec<f32> = (0..heads).flat_map(|head| *decays.of(head)).collect();
        let states = CudaStates {
            heads,
            widths: [plan.head_dim, width],
            sums: memory(slots, shape.sums_len())?,
            tails: memory(slots, shape.tail_len())?,
            snapshots: memory(snapshots, shape.sums_len())?,
            decays: memory(1, decays.len())?,
        };
        states.decays.write(0, bytemuck::cast_slice(&decays))?;
        Ok(states)
    }

    pub(super) fn attend_states(
        &self,
        qkv: &CudaTensor<D>,
        states: &CudaStates<D>,
        batch: &CudaBatch<D>,
    ) -> CudaTensor<D> {
        let CudaStates { heads, widths: [own, width], ref sums, ref tails, ref snapshots, ref decays } =
            *states;
        let wide = (own < width).then(|| self.wider(qkv, own, width));
        let qkv = wide.as_ref().unwrap_or(qkv);
        let out = self.tensor(qkv.rows, heads * width);
        for wave in &batch.waves {
            let lightning = Lightning {
                qkv: qkv.address(),
                out: out.address(),
                sums: sums.address(),
                tails: tails.address(),
                snapshots: snapshots.address(),
                decays: decays.address(),
                sequences: wave.first,
                saves: batch.saves,
                heads: heads as u32,
                head_dim: width as u32,
            };
            self.launch(&lightning.launch(wave.sequences));
        }
        if own < width { self.part(&out, width, [0, own]) } else { out }
    }
}
