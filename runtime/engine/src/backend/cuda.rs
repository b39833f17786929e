//! CUDA: tensors and weights in a device's memory, operations from the kernels of `coterie-kernels`.
//!
//! What goes through tensor cores is rounded to bf16 before, and caches are bf16; everything else is f32. A row's bits depend
//! on the row alone, as everywhere.
//!
//! A rank that holds all experts asks for a whole step, and waits only where logits are read. Among several ranks this
//! process brings rows to experts, and waits for every gate's choice.

mod attention;
mod batch;
mod experts;
mod fixed;
mod graphs;
mod heads;
mod lightning;
mod memory;
mod products;
pub mod rates;
pub(crate) mod room;
mod rope;
mod upload;
mod weights;

use crate::backend::{AttentionShape, Backend, Choice, LatentShape, Step};
use crate::batch::{Batch, Draw};
use crate::load_error::LoadError;
use crate::model::Need;
use crate::model::config::plan::{Activation, Blend, LightningPlan};
use crate::model::config::rope::RopePlan;
use crate::moe::activations;
use crate::moe::expert::Expert;
use crate::state::StateRoom;
pub use attention::{CudaKvBlocks, CudaLatentBlocks};
pub use batch::CudaBatch;
use coterie_api::launch::Activations;
use coterie_kernels::cpu::logits;
use coterie_kernels::cpu::pool::Pool;
use coterie_kernels::cuda::device::Device;
use coterie_kernels::cuda::elements::{Elements, Op};
use coterie_kernels::cuda::launch::{Address, Launch};
use coterie_kernels::cuda::norm::Norm;
use coterie_kernels::cuda::rows::{Biases, Combine, Fill, Gather};
use coterie_kernels::cuda::sample::{Best, NO_TOKEN};
use coterie_kernels::cuda::tiles::Table;
use coterie_kernels::gate::Rule;
use experts::AddressLists;
use graphs::Graphs;
pub use lightning::CudaStates;
pub use memory::CudaTensor;
use memory::Spare;
pub use rope::CudaRope;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use weights::STEP;
pub use weights::{CudaMatrix, CudaVector};

/// A device, for one thread.
pub struct Cuda<D: Device> {
    device: Arc<D>,
    /// For what is computed here: weights on their way, and what is read of logits.
    pool: Pool,
    // Before what their graphs use.
    graphs: RefCell<Option<Graphs<D>>>,
    lists: AddressLists<D>,
    tiles: Arc<Table>,
    spare: Rc<Spare<D>>,
}

impl<D: Device> Cuda<D> {
    /// A backend on `device`, which reads weights with `threads` threads of this process; 0 takes all cores.
    pub fn new(device: Arc<D>, threads: usize) -> Cuda<D> {
        Cuda {
            pool: Pool::new(threads),
            graphs: RefCell::new(Some(Graphs::default())),
            lists: AddressLists::default(),
            tiles: Arc::default(),
            spare: Spare::new(device.clone()),
            device,
        }
    }

    /// The same, which starts every kernel by itself.
    pub fn without_graphs(self) -> Cuda<D> {
        Cuda { graphs: RefCell::new(None), ..self }
    }

    /// The same with products cut as a table says, which changes no result.
    pub fn with_tiles(self, tiles: Arc<Table>) -> Cuda<D> {
        Cuda { tiles, ..self }
    }

    fn tensor(&self, rows: usize, width: usize) -> CudaTensor<D> {
        CudaTensor::new(self.spare.take(rows * width * size_of::<f32>()), rows, width)
    }

    /// Starts a kernel, if it has anything to do.
    fn launch<P>(&self, launch: &Launch<P>) {
        if !launch.grid.contains(&0) {
            self.start(launch);
        }
    }

    /// One op on all elements of `a`, and of `b` as the op says, to `out`.
    fn elements(&self, op: Op, [a, b, out]: [Address; 3], count: usize, width: usize, factors: [f32; 2]) {
        let [alpha, beta] = factors;
        let elements = Elements { a, b, out, count: count as u64, width: width as u32, alpha, beta };
        self.launch(&elements.launch(op));
    }

    /// The same in place.
    fn change(&self, op: Op, x: &mut CudaTensor<D>, b: Address, factors: [f32; 2]) {
        let (count, width, address) = (x.rows * x.width, x.width, x.address_mut());
        self.elements(op, [address, b, address], count, width, factors);
    }

    /// Of each row the largest value and its column.
    fn best_of_rows(&self, x: &CudaTensor<D>) -> Vec<(u32, f32)> {
        let out = self.spare.take(2 * x.rows * size_of::<u32>());
        let (logits, tokens, vocabulary) = (x.address(), out.address(), x.width as u32);
        let values = tokens + (x.rows * size_of::<u32>()) as Address;
        self.launch(&Best { logits, tokens, values, vocabulary }.launch(x.rows as u32));
        let both: Vec<u32> = out.read(2 * x.rows);
        let (tokens, values) = both.split_at(x.rows);
        tokens.iter().zip(values).map(|(token, value)| (*token, f32::from_bits(*value))).collect()
    }
}

impl<D: Device + 'static> Backend for Cuda<D> {
    type Tensor = CudaTensor<D>;
    type KvBlocks = CudaKvBlocks<D>;
    type LatentBlocks = CudaLatentBlocks<D>;
    type States = CudaStates<D>;
    type Rope = Rc<CudaRope<D>>;
    type Batch<'a> = CudaBatch<D>;

    fn check(&self, need: &Need<'_>) -> Result<(), LoadError> {
        room::shapes(need.config)?;
        room::memory(need, self.graphs.borrow().is_some(), self.device.free_memory()?)
    }

    fn place(&self, batch: &Batch) -> CudaBatch<D> {
        CudaBatch::new(batch, &self.spare)
    }

    fn repeats(&self) -> bool {
        self.graphs.borrow().as_ref().is_some_and(Graphs::is_used)
    }

    fn repeat(
        &self,
        batch: &Batch,
        mut compute: impl FnMut(&CudaBatch<D>) -> Step<CudaTensor<D>>,
    ) -> Option<Step<CudaTensor<D>>> {
        self.repeated(batch, &mut compute)
    }

    fn kv_blocks(&self, shape: &AttentionShape, blocks: usize) -> Result<CudaKvBlocks<D>, LoadError> {
        self.new_kv_blocks(shape, blocks)
    }

    fn latent_blocks(&self, _: &LatentShape, blocks: usize) -> Result<CudaLatentBlocks<D>, LoadError> {
        self.new_latent_blocks(blocks)
    }

    fn states(&self, plan: &LightningPlan, room: StateRoom) -> Result<CudaStates<D>, LoadError> {
        self.new_states(plan, room)
    }

    fn rope(&self, plan: &RopePlan, head_dim: usize) -> Rc<CudaRope<D>> {
        Rc::new(CudaRope::new(plan, head_dim, &self.spare))
    }

    fn embed(&self, table: &CudaMatrix<D>, batch: &CudaBatch<D>) -> CudaTensor<D> {
        let out = self.tensor(batch.rows, table.inputs);
        let gather = Gather {
            x: table.values(),
            rows: batch.token_ids,
            out: out.address(),
            stride: table.inputs.next_multiple_of(STEP) as u32,
            width: table.inputs as u32,
        };
        self.launch(&gather.launch(batch.rows as u32, true));
        out
    }

    fn rms_norm(&self, x: &CudaTensor<D>, weight: &CudaVector<D>, eps: f32) -> CudaTensor<D> {
        let out = self.tensor(x.rows, x.width);
        let norm = Norm {
            x: x.address(),
            weight: weight.memory.address(),
            residual: 0,
            out: out.address(),
            width: weight.length as u32,
            eps,
        };
        self.launch(&norm.launch((x.rows * (x.width / weight.length)) as u32, false));
        out
    }

    fn matmul<const N: usize>(&self, x: &CudaTensor<D>, w: [&CudaMatrix<D>; N]) -> [CudaTensor<D>; N] {
        self.matmuls(x, w)
    }

    fn rotate(&self, x: &mut CudaTensor<D>, rope: &Rc<CudaRope<D>>, batch: &CudaBatch<D>) {
        self.turn(x, rope, batch);
    }

    fn attend(
        &self,
        qkv: [&CudaTensor<D>; 3],
        cache: &mut CudaKvBlocks<D>,
        batch: &CudaBatch<D>,
        shape: &AttentionShape,
        sinks: Option<&CudaVector<D>>,
    ) -> CudaTensor<D> {
        self.attend_blocks(qkv, cache, batch, shape, sinks)
    }

    fn split(&self, x: &CudaTensor<D>, width: usize, first: usize) -> [CudaTensor<D>; 2] {
        [[0, first], [first, width - first]].map(|part| self.part(x, width, part))
    }

    fn join(&self, a: &CudaTensor<D>, b: &CudaTensor<D>, heads: usize) -> CudaTensor<D> {
        self.side_by_side(a, b, heads)
    }

    fn per_head(&self, x: &CudaTensor<D>, w: &[CudaMatrix<D>]) -> CudaTensor<D> {
        self.heads_times(x, w)
    }

    fn attend_latent(
        &self,
        q: &CudaTensor<D>,
        latent: &CudaTensor<D>,
        key: &CudaTensor<D>,
        cache: &mut CudaLatentBlocks<D>,
        batch: &CudaBatch<D>,
        shape: &LatentShape,
    ) -> CudaTensor<D> {
        self.attend_latents(q, [latent, key], cache, batch, shape)
    }

    fn lightning(
        &self,
        qkv: &CudaTensor<D>,
        states: &mut CudaStates<D>,
        batch: &CudaBatch<D>,
    ) -> CudaTensor<D> {
        self.attend_states(qkv, states, batch)
    }

    fn add(&self, x: &mut CudaTensor<D>, y: &CudaTensor<D>) {
        self.change(Op::Add, x, y.address(), [0.0; 2]);
    }

    fn blend(&self, x: &mut CudaTensor<D>, y: &CudaTensor<D>, weights: Blend) {
        self.change(Op::Blend, x, y.address(), [weights.alpha, weights.beta]);
    }

    fn silu(&self, x: &mut CudaTensor<D>) {
        self.change(Op::Silu, x, 0, [0.0; 2]);
    }

    fn sigmoid_mul(&self, x: &mut CudaTensor<D>, gate: &CudaTensor<D>) {
        self.change(Op::SigmoidMul, x, gate.address(), [0.0; 2]);
    }

    fn add_to_rows(&self, x: &mut CudaTensor<D>, bias: &CudaVector<D>) {
        self.change(Op::AddToRows, x, bias.memory.address(), [0.0; 2]);
    }

    fn gate_rows(&self, x: &mut CudaTensor<D>, gates: &CudaTensor<D>) {
        self.change(Op::GateRows, x, gates.address(), [0.0; 2]);
    }

    fn activate(&self, activation: Activation, gate: &CudaTensor<D>, up: &CudaTensor<D>) -> CudaTensor<D> {
        let out = self.tensor(gate.rows, gate.width);
        let (op, factors) = match activation {
            Activation::Silu => (Op::SiluMul, [0.0; 2]),
            Activation::ClampedSwiglu { alpha, limit } => (Op::ClampedSwiglu, [alpha, limit]),
        };
        let addresses = [gate.address(), up.address(), out.address()];
        self.elements(op, addresses, gate.rows * gate.width, 0, factors);
        out
    }

    fn choose(&self, logits: &CudaTensor<D>, correction: Option<&CudaVector<D>>, rule: &Rule) -> Choice {
        let chosen = self.chosen(logits, correction, rule);
        let mut experts: Vec<u32> = chosen.memory.read(2 * chosen.choices);
        let weights = experts.split_off(chosen.choices).into_iter().map(f32::from_bits).collect();
        Choice { experts, weights, per_token: rule.per_token }
    }

    fn experts(
        &self,
        x: &CudaTensor<D>,
        logits: &CudaTensor<D>,
        correction: Option<&CudaVector<D>>,
        rule: &Rule,
        experts: &[&Expert<Self>],
    ) -> Option<CudaTensor<D>> {
        self.all_experts(x, logits, correction, rule, experts)
    }

    fn gather(&self, x: &CudaTensor<D>, rows: &[u32]) -> CudaTensor<D> {
        let (out, list) = (self.tensor(rows.len(), x.width), self.spare.with(rows));
        let width = x.width as u32;
        let gather =
            Gather { x: x.address(), rows: list.address(), out: out.address(), stride: width, width };
        self.launch(&gather.launch(rows.len() as u32, false));
        out
    }

    fn grouped_matmul<const N: usize>(
        &self,
        x: &CudaTensor<D>,
        offsets: &[u32],
        w: [&[&CudaMatrix<D>]; N],
    ) -> [CudaTensor<D>; N] {
        self.grouped(x, offsets, w)
    }

    fn grouped_add(&self, x: &mut CudaTensor<D>, offsets: &[u32], biases: &[&CudaVector<D>]) {
        let of_rows = biases.iter().zip(offsets.windows(2)).flat_map(|(bias, ends)| {
            std::iter::repeat_n(bias.memory.address(), (ends[1] - ends[0]) as usize)
        });
        let list = self.spare.with(&of_rows.collect::<Vec<Address>>());
        let rows = x.rows as u32;
        let add = Biases { width: x.width as u32, x: x.address_mut(), biases: list.address() };
        self.launch(&add.launch(rows));
    }

    fn combine(&self, x: &CudaTensor<D>, rows: &[u32], weights: &[f32], per_token: usize) -> CudaTensor<D> {
        let out = self.tensor(rows.len() / per_token, x.width);
        let both = rows.iter().copied().chain(weights.iter().map(|weight| weight.to_bits()));
        let both = self.spare.with(&both.collect::<Vec<u32>>());
        let combine = Combine {
            x: x.address(),
            places: both.address(),
            weights: both.address() + size_of_val(rows) as Address,
            out: out.address(),
            per_token: per_token as u32,
            width: x.width as u32,
        };
        self.launch(&combine.launch(out.rows as u32));
        out
    }

    fn rows(&self, x: &CudaTensor<D>) -> usize {
        x.rows
    }

    fn width(&self, x: &CudaTensor<D>) -> usize {
        x.width
    }

    fn encode(&self, activations: Activations, x: &CudaTensor<D>, out: &mut Vec<u8>) {
        out.reserve(x.rows * activations::row_bytes(activations, x.width));
        for row in x.values().chunks_exact(x.width) {
            activations::encode(activations, row, out);
        }
    }

    fn decode(&self, activations: Activations, bytes: &[u8], width: usize) -> CudaTensor<D> {
        let row = activations::row_bytes(activations, width);
        let rows = bytes.len() / row;
        let mut values = vec![0.0; rows * width];
        for (out, bytes) in values.chunks_exact_mut(width).zip(bytes.chunks_exact(row)) {
            activations::decode(activations, bytes, out);
        }
        CudaTensor::new(self.spare.with(&values), rows, width)
    }

    fn bytes(matrix: &CudaMatrix<D>) -> usize {
        matrix.bytes()
    }

    fn forbid(&self, x: &mut CudaTensor<D>, first: usize) {
        let (rows, width) = (x.rows as u32, x.width as u32);
        let fill = Fill { x: x.address_mut(), width, first: first as u32, value: f32::NEG_INFINITY };
        self.launch(&fill.launch(rows));
    }

    fn argmax(&self, x: &CudaTensor<D>, row: usize) -> (u32, f32) {
        x.best(|| self.best_of_rows(x))[row]
    }

    fn draw(&self, x: &mut CudaTensor<D>, draws: &[Draw]) {
        let rules = self.spare.with(&fixed::rules(draws));
        self.draw_by(x, rules.address());
    }

    fn drawn(&self, x: &CudaTensor<D>, row: usize) -> Option<Option<u32>> {
        x.drawn(row).map(|token| (token != NO_TOKEN).then_some(token))
    }

    fn log_softmax_top(&self, x: &CudaTensor<D>, row: usize, token: u32, n: usize) -> (f32, Vec<(u32, f32)>) {
        logits::log_softmax_top(&self.pool, x.row(row), token, n)
    }

    fn copy_row(&self, x: &CudaTensor<D>, row: usize, out: &mut Vec<f32>) {
        out.clear();
        out.extend_from_slice(x.row(row));
    }
}
