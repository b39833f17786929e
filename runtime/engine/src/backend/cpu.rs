//! The CPU: tensors in ordinary memory, matrices where the files are mapped, operations from `coterie-kernels`.

use crate::backend::{AttentionShape, Backend, Choice, LatentShape};
use crate::batch::{Batch, SequenceRows};
use crate::block_pool::BLOCK_SIZE;
use crate::load_error::LoadError;
use crate::model::Need;
use crate::model::config::plan::{Activation, Blend, LightningPlan};
use crate::model::config::rope::{Pairs, RopePlan};
use crate::moe::activations;
use crate::state::{Origin, StateRoom, StateRows};
use crate::weights::quantize::to_int8;
use crate::weights::safetensors::Dtype;
use crate::weights::shard::TensorView;
use crate::weights::written::{Packed, Written};
use crate::weights::{Role, Storage};
use coterie_api::launch::{Activations, Device, Quantization};
use coterie_kernels::cpu::attention::latent;
use coterie_kernels::cpu::lightning::{self, Decays};
use coterie_kernels::cpu::matmul::Matrix;
use coterie_kernels::cpu::moe::Job;
use coterie_kernels::cpu::pool::Pool;
use coterie_kernels::cpu::quant::Int8;
use coterie_kernels::cpu::{activation, attention, gate, heads, logits, moe, norm, rope};
use coterie_kernels::gate::Rule;
use half::bf16;
use memmap2::{MmapMut, MmapOptions};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// This process's cores.
pub struct Cpu {
    pool: Pool,
    spare: Rc<Spare>,
}

impl Cpu {
    /// A backend of `threads` threads; 0 takes all cores that this process may use.
    pub fn new(threads: usize) -> Cpu {
        Cpu { pool: Pool::new(threads), spare: Rc::default() }
    }

    fn tensor(&self, rows: usize, width: usize) -> CpuTensor {
        CpuTensor { memory: self.spare.take(width, rows), rows, width, spare: self.spare.clone() }
    }
}

/// Memory of dropped tensors by width. A layer asks for the same few widths again and again, so each width keeps as
/// many buffers as were ever in use at once, each as long as the longest batch made it.
#[derive(Default)]
struct Spare(RefCell<BTreeMap<usize, Vec<Vec<f32>>>>);

impl Spare {
    fn take(&self, width: usize, rows: usize) -> Vec<f32> {
        let mut memory = self.0.borrow_mut().entry(width).or_default().pop().unwrap_or_default();
        if memory.len() < rows * width {
            // A new allocation instead of a growing one: the old values are not copied, untouched pages cost nothing.
            memory = vec![0.0; rows * width];
        }
        memory
    }

    fn give_back(&self, width: usize, memory: Vec<f32>) {
        self.0.borrow_mut().entry(width).or_default().push(memory);
    }
}

/// Activations `[rows, width]`.
pub struct CpuTensor {
    /// At least `rows · width` values.
    memory: Vec<f32>,
    rows: usize,
    width: usize,
    spare: Rc<Spare>,
}

impl CpuTensor {
    fn values(&self) -> &[f32] {
        &self.memory[..self.rows * self.width]
    }

    fn values_mut(&mut self) -> &mut [f32] {
        &mut self.memory[..self.rows * self.width]
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values()[row * self.width..][..self.width]
    }
}

impl Drop for CpuTensor {
    fn drop(&mut self) {
        self.spare.give_back(self.width, std::mem::take(&mut self.memory));
    }
}

/// A weight matrix `[outputs, inputs]`.
pub struct CpuMatrix {
    outputs: usize,
    inputs: usize,
    held: Held,
}

enum Held {
    /// bf16 or f32, aligned, used where the file is mapped.
    Mapped(TensorView),
    Bf16(Vec<bf16>),
    F32(Vec<f32>),
    Int8(Int8),
    /// MXFP4, used where the file is mapped.
    Packed(Packed),
}

/// A matrix that is not quantized, in its own format where that is computed with.
fn plain(pool: &Pool, written: Written) -> Held {
    match written {
        Written::Rows(view) if matches!(view.dtype(), Dtype::Bf16 | Dtype::F32) && view.is_aligned() => {
            view.read_pages();
            Held::Mapped(view)
        }
        Written::Mxfp4(packed) => Held::Packed(packed),
        _ if written.is_f32() => Held::F32(written.to_f32()),
        _ => {
            let values = written.to_bf16(pool).into_owned();
            written.forget_pages();
            Held::Bf16(values)
        }
    }
}

impl CpuMatrix {
    fn view(&self) -> Matrix<'_> {
        let (n, k) = (self.outputs, self.inputs);
        match &self.held {
            Held::Mapped(view) if view.dtype() == Dtype::Bf16 => {
                Matrix::Bf16 { values: bytemuck::cast_slice(view.bytes()), n, k }
            }
            Held::Mapped(view) => Matrix::F32 { values: bytemuck::cast_slice(view.bytes()), n, k },
            Held::Bf16(values) => Matrix::Bf16 { values, n, k },
            Held::F32(values) => Matrix::F32 { values, n, k },
            Held::Int8(values) => Matrix::Int8(values.view()),
            Held::Packed(packed) => Matrix::Mxfp4(packed.view()),
        }
    }

    fn embedding(&self, token: u32, out: &mut [f32]) {
        let row = token as usize * self.inputs..(token as usize + 1) * self.inputs;
        match self.view() {
            Matrix::Bf16 { values, .. } => {
                for (out, value) in out.iter_mut().zip(&values[row]) {
                    *out = value.to_f32();
                }
            }
            Matrix::F32 { values, .. } => out.copy_from_slice(&values[row]),
            Matrix::Int8(_) | Matrix::Mxfp4(_) => unreachable!("embeddings are kept as they are"),
        }
    }
}

impl Storage for Cpu {
    type Matrix = CpuMatrix;
    type Vector = Vec<f32>;

    fn matrix(
        &self,
        written: Written,
        role: Role,
        quantization: Quantization,
    ) -> Result<CpuMatrix, LoadError> {
        let [outputs, inputs] = written.shape();
        let held = match (quantization, role) {
            (Quantization::Int8, Role::Dense | Role::Expert) => Held::Int8(to_int8(&self.pool, &written)),
            (Quantization::Int4, Role::Dense | Role::Expert) => {
                return Err(LoadError::OnlyOnGpus { quantization });
            }
            _ => plain(&self.pool, written),
        };
        Ok(CpuMatrix { outputs, inputs, held })
    }

    fn vector(&self, written: Written, _: Role) -> Result<Vec<f32>, LoadError> {
        Ok(written.to_f32())
    }
}

/// One layer's keys and values, each `[blocks, kv_heads, block size, head_dim]`.
pub struct CpuKvBlocks {
    keys: MmapMut,
    values: MmapMut,
}

/// One layer's `[blocks, block size, latent + rope]`.
pub struct CpuLatentBlocks(MmapMut);

/// One layer's running states.
pub struct CpuStates {
    shape: lightning::Shape,
    decays: Decays,
    sums: MmapMut,
    tails: MmapMut,
    snapshots: MmapMut,
}

/// Memory for `blocks` blocks of so many bytes a token.
fn block_memory(blocks: usize, bytes_per_token: usize) -> Result<MmapMut, LoadError> {
    let bytes = (blocks * BLOCK_SIZE).checked_mul(bytes_per_token).filter(|n| *n > 0);
    untouched(bytes.ok_or(LoadError::CacheTooLarge { blocks })?)
}

/// `bytes` of anonymous memory: zero, and costing nothing until it is written.
fn untouched(bytes: usize) -> Result<MmapMut, LoadError> {
    let map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon();
    map.map_err(|source| LoadError::NoMemory { bytes, source })
}

/// The rotary embedding's table. It grows to the largest position seen, by doubling: its size follows the contexts
/// that are used, not the one that config.json claims.
pub struct CpuRope {
    frequencies: Vec<f32>,
    amplitude: f32,
    pairs: Pairs,
    head_dim: usize,
    table: RefCell<Rc<rope::Table>>,
}

/// Positions that a rotary table has from the start.
const FIRST_POSITIONS: usize = 4096;

impl CpuRope {
    fn table(&self, positions: usize) -> Rc<rope::Table> {
        let mut table = self.table.borrow_mut();
        if table.max_positions() < positions {
            let positions = positions.next_power_of_two();
            *table = Rc::new(rope::Table::new(&self.frequencies, self.amplitude, positions));
        }
        table.clone()
    }
}

/// A batch, and its sequences as the kernels take them.
pub struct CpuBatch<'a> {
    batch: &'a Batch,
    sequences: Vec<attention::Sequence<'a>>,
    states: lightning::Plan,
    /// One more than the largest position.
    positions: usize,
}

fn kernel_shape(shape: &AttentionShape) -> attention::Shape {
    let AttentionShape { heads, kv_heads, head_dim, scale, window } = *shape;
    attention::Shape { q_heads: heads, kv_heads, head_dim, block_size: BLOCK_SIZE, scale, window }
}

/// The sequences' running states, as far as they have any.
fn state_plan(batch: &Batch) -> lightning::Plan {
    let mut plan = lightning::Plan::default();
    for SequenceRows { rows, context, state, .. } in &batch.sequences {
        let Some(StateRows { slot, origin, saves }) = state else { continue };
        let origin = match origin {
            Origin::Zero => lightning::Origin::Zero,
            Origin::Snapshot(snapshot) => lightning::Origin::Snapshot(*snapshot as usize),
            Origin::Slot => lightning::Origin::Slot,
        };
        let saves = batch.saves[saves.clone()].iter();
        let saves = saves.map(|s| lightning::Save { tokens: s.tokens, snapshot: s.snapshot as usize });
        plan.push(rows.clone(), context - rows.len(), *slot as usize, origin, saves);
    }
    plan
}

impl Backend for Cpu {
    type Tensor = CpuTensor;
    type KvBlocks = CpuKvBlocks;
    type LatentBlocks = CpuLatentBlocks;
    type States = CpuStates;
    type Rope = Rc<CpuRope>;
    type Batch<'a> = CpuBatch<'a>;

    fn check(&self, need: &Need<'_>) -> Result<(), LoadError> {
        let quantization = need.quantization;
        match quantization.runs_on(Device::Cpu) {
            true => Ok(()),
            false => Err(LoadError::OnlyOnGpus { quantization }),
        }
    }

    fn place<'a>(&self, batch: &'a Batch) -> CpuBatch<'a> {
        let sequences = batch.sequences.iter().map(|sequence| attention::Sequence {
            rows: sequence.rows.clone(),
            block_table: &batch.tables[sequence.table.clone()],
            context: sequence.context,
        });
        let positions = batch.sequences.iter().map(|sequence| sequence.context).max();
        CpuBatch {
            batch,
            sequences: sequences.collect(),
            states: state_plan(batch),
            positions: positions.unwrap_or_default(),
        }
    }

    fn kv_blocks(&self, shape: &AttentionShape, blocks: usize) -> Result<CpuKvBlocks, LoadError> {
        let half = || block_memory(blocks, shape.bytes_per_token() / 2);
        Ok(CpuKvBlocks { keys: half()?, values: half()? })
    }

    fn latent_blocks(&self, shape: &LatentShape, blocks: usize) -> Result<CpuLatentBlocks, LoadError> {
        Ok(CpuLatentBlocks(block_memory(blocks, shape.bytes_per_token())?))
    }

    fn states(&self, plan: &LightningPlan, room: StateRoom) -> Result<CpuStates, LoadError> {
        let StateRoom { slots, snapshots } = room;
        let shape = lightning::Shape { heads: plan.heads(), head_dim: plan.head_dim };
        let memory = |states: usize, floats: usize| {
            // A mapping of nothing is refused.
            let bytes = states.max(1).checked_mul(floats * size_of::<f32>());
            untouched(bytes.ok_or(LoadError::StatesTooLarge { slots, snapshots })?)
        };
        Ok(CpuStates {
            shape,
            decays: Decays::new(&plan.slopes),
            sums: memory(slots, shape.sums_len())?,
            tails: memory(slots, shape.tail_len())?,
            snapshots: memory(snapshots, shape.sums_len())?,
        })
    }

    fn rope(&self, plan: &RopePlan, head_dim: usize) -> Rc<CpuRope> {
        let (frequencies, amplitude) = (plan.frequencies(), plan.amplitude());
        let table = RefCell::new(Rc::new(rope::Table::new(&frequencies, amplitude, FIRST_POSITIONS)));
        Rc::new(CpuRope { frequencies, amplitude, pairs: plan.pairs, head_dim, table })
    }

    fn embed(&self, table: &CpuMatrix, batch: &CpuBatch<'_>) -> CpuTensor {
        let mut out = self.tensor(batch.batch.rows(), table.inputs);
        for (row, &token) in out.values_mut().chunks_exact_mut(table.inputs).zip(&batch.batch.tokens) {
            table.embedding(token, row);
        }
        out
    }

    fn rms_norm(&self, x: &CpuTensor, weight: &Vec<f32>, eps: f32) -> CpuTensor {
        let mut out = self.tensor(x.rows, x.width);
        norm::rms_norm(&self.pool, out.values_mut(), x.values(), weight, eps, weight.len());
        out
    }

    fn matmul<const N: usize>(&self, x: &CpuTensor, w: [&CpuMatrix; N]) -> [CpuTensor; N] {
        let mut outs = w.map(|w| self.tensor(x.rows, w.outputs));
        let mut jobs: [Option<Job<'_>>; N] = [const { None }; N];
        for ((job, out), w) in jobs.iter_mut().zip(&mut outs).zip(w) {
            *job = Some(Job { out: out.values_mut(), x: x.values(), w: w.view(), m: x.rows });
        }
        moe::grouped(&self.pool, &mut jobs.map(|job| job.expect("each job was just made")));
        outs
    }

    fn rotate(&self, x: &mut CpuTensor, rope: &Rc<CpuRope>, batch: &CpuBatch<'_>) {
        let (table, heads) = (rope.table(batch.positions), x.width / rope.head_dim);
        let rotate = match rope.pairs {
            Pairs::Halves => rope::half_split,
            Pairs::Neighbours => rope::interleaved,
        };
        rotate(&self.pool, x.values_mut(), &table, &batch.batch.positions, heads, rope.head_dim);
    }

    fn attend(
        &self,
        [q, k, v]: [&CpuTensor; 3],
        cache: &mut CpuKvBlocks,
        batch: &CpuBatch<'_>,
        shape: &AttentionShape,
        sinks: Option<&Vec<f32>>,
    ) -> CpuTensor {
        let shape = kernel_shape(shape);
        let keys: &mut [f32] = bytemuck::cast_slice_mut(&mut cache.keys);
        let values: &mut [f32] = bytemuck::cast_slice_mut(&mut cache.values);
        attention::kv_store(&self.pool, keys, values, k.values(), v.values(), &batch.batch.slots, &shape);
        let mut out = self.tensor(q.rows, q.width);
        let (caches, sinks) = ([&*keys, &*values], sinks.map(Vec::as_slice));
        attention::paged(&self.pool, out.values_mut(), q.values(), caches, sinks, &batch.sequences, &shape);
        out
    }

    fn split(&self, x: &CpuTensor, width: usize, first: usize) -> [CpuTensor; 2] {
        [(0, first), (first, width - first)].map(|(from, dim)| {
            let mut out = self.tensor(x.rows, x.width / width * dim);
            heads::part(&self.pool, out.values_mut(), x.values(), width, from, dim);
            out
        })
    }

    fn join(&self, a: &CpuTensor, b: &CpuTensor, heads: usize) -> CpuTensor {
        let mut out = self.tensor(a.rows, a.width + b.width);
        let dims = [a.width / heads, b.width / heads];
        heads::join(&self.pool, out.values_mut(), [a.values(), b.values()], dims);
        out
    }

    fn per_head(&self, x: &CpuTensor, w: &[CpuMatrix]) -> CpuTensor {
        let (rows, heads, inputs, outputs) = (x.rows, w.len(), w[0].inputs, w[0].outputs);
        let mut out = self.tensor(rows, heads * outputs);
        // A product's rows lie one behind the other: head by head.
        let mut by_head = self.tensor(heads * rows, inputs);
        heads::swap(&self.pool, by_head.values_mut(), x.values(), rows, heads, inputs);
        let mut answers = self.tensor(heads * rows, outputs);
        let xs = by_head.values().chunks_exact(rows * inputs);
        let outs = answers.values_mut().chunks_exact_mut(rows * outputs);
        let jobs = outs.zip(xs).zip(w).map(|((out, x), w)| Job { out, x, w: w.view(), m: rows });
        moe::grouped(&self.pool, &mut jobs.collect::<Vec<_>>());
        heads::swap(&self.pool, out.values_mut(), answers.values(), heads, rows, outputs);
        out
    }

    fn attend_latent(
        &self,
        q: &CpuTensor,
        latent: &CpuTensor,
        key: &CpuTensor,
        cache: &mut CpuLatentBlocks,
        batch: &CpuBatch<'_>,
        shape: &LatentShape,
    ) -> CpuTensor {
        let LatentShape { heads, latent: width, rope, scale } = *shape;
        let shape = latent::Shape { heads, latent: width, rope, block_size: BLOCK_SIZE, scale };
        let cache: &mut [f32] = bytemuck::cast_slice_mut(&mut cache.0);
        latent::store(cache, latent.values(), key.values(), &batch.batch.slots, &shape);
        let mut out = self.tensor(q.rows, heads * width);
        latent::paged(&self.pool, out.values_mut(), q.values(), cache, &batch.sequences, &shape);
        out
    }

    fn lightning(&self, qkv: &CpuTensor, states: &mut CpuStates, batch: &CpuBatch<'_>) -> CpuTensor {
        let mut out = self.tensor(qkv.rows, qkv.width / 3);
        let CpuStates { shape, decays, sums, tails, snapshots } = states;
        let memory = lightning::States {
            sums: bytemuck::cast_slice_mut(sums),
            tails: bytemuck::cast_slice_mut(tails),
            snapshots: bytemuck::cast_slice_mut(snapshots),
        };
        let (pool, plan) = (&self.pool, &batch.states);
        lightning::attend(pool, out.values_mut(), qkv.values(), memory, plan, shape, decays);
        out
    }

    fn add(&self, x: &mut CpuTensor, y: &CpuTensor) {
        activation::add(&self.pool, x.values_mut(), y.values());
    }

    fn blend(&self, x: &mut CpuTensor, y: &CpuTensor, weights: Blend) {
        activation::blend(&self.pool, x.values_mut(), y.values(), weights.alpha, weights.beta);
    }

    fn silu(&self, x: &mut CpuTensor) {
        activation::silu(&self.pool, x.values_mut());
    }

    fn sigmoid_mul(&self, x: &mut CpuTensor, gate: &CpuTensor) {
        activation::sigmoid_mul(&self.pool, x.values_mut(), gate.values());
    }

    fn add_to_rows(&self, x: &mut CpuTensor, bias: &Vec<f32>) {
        activation::add_to_rows(&self.pool, x.values_mut(), bias);
    }

    fn gate_rows(&self, x: &mut CpuTensor, gates: &CpuTensor) {
        let width = x.width;
        activation::gate_rows(&self.pool, x.values_mut(), gates.values(), width);
    }

    fn activate(&self, activation: Activation, gate: &CpuTensor, up: &CpuTensor) -> CpuTensor {
        let mut out = self.tensor(gate.rows, gate.width);
        let (values, gate, up) = (out.values_mut(), gate.values(), up.values());
        match activation {
            Activation::Silu => activation::silu_mul(&self.pool, values, gate, up),
            Activation::ClampedSwiglu { alpha, limit } => {
                activation::clamped_swiglu(&self.pool, values, gate, up, alpha, limit);
            }
        }
        out
    }

    fn choose(&self, logits: &CpuTensor, correction: Option<&Vec<f32>>, rule: &Rule) -> Choice {
        let choices = logits.rows * rule.per_token;
        let (mut experts, mut weights) = (vec![0; choices], vec![0.0; choices]);
        let (values, bias, width) = (logits.values(), correction.map(Vec::as_slice), logits.width);
        gate::choose(&self.pool, values, bias, width, rule, &mut experts, &mut weights);
        Choice { experts, weights, per_token: rule.per_token }
    }

    fn gather(&self, x: &CpuTensor, rows: &[u32]) -> CpuTensor {
        let mut out = self.tensor(rows.len(), x.width);
        moe::gather(&self.pool, out.values_mut(), x.values(), rows, x.width);
        out
    }

    fn grouped_matmul<const N: usize>(
        &self,
        x: &CpuTensor,
        offsets: &[u32],
        w: [&[&CpuMatrix]; N],
    ) -> [CpuTensor; N] {
        let mut outs = w.map(|w| self.tensor(x.rows, w[0].outputs));
        let mut jobs = Vec::with_capacity(N * offsets.len());
        for (out, w) in outs.iter_mut().zip(w) {
            let mut rest = out.values_mut();
            for (matrix, ends) in w.iter().zip(offsets.windows(2)) {
                let (first, m) = (ends[0] as usize, (ends[1] - ends[0]) as usize);
                let (mine, others) = rest.split_at_mut(m * matrix.outputs);
                rest = others;
                if m > 0 {
                    let x = &x.values()[first * x.width..][..m * x.width];
                    jobs.push(Job { out: mine, x, w: matrix.view(), m });
                }
            }
        }
        moe::grouped(&self.pool, &mut jobs);
        outs
    }

    fn grouped_add(&self, x: &mut CpuTensor, offsets: &[u32], biases: &[&Vec<f32>]) {
        let width = x.width;
        for (bias, ends) in biases.iter().zip(offsets.windows(2)) {
            let rows = ends[0] as usize * width..ends[1] as usize * width;
            activation::add_to_rows(&self.pool, &mut x.values_mut()[rows], bias);
        }
    }

    fn combine(&self, x: &CpuTensor, rows: &[u32], weights: &[f32], per_token: usize) -> CpuTensor {
        let mut out = self.tensor(rows.len() / per_token, x.width);
        moe::combine(&self.pool, out.values_mut(), x.values(), rows, weights, per_token, x.width);
        out
    }

    fn rows(&self, x: &CpuTensor) -> usize {
        x.rows
    }

    fn width(&self, x: &CpuTensor) -> usize {
        x.width
    }

    fn encode(&self, activations: Activations, x: &CpuTensor, out: &mut Vec<u8>) {
        out.reserve(x.rows * activations::row_bytes(activations, x.width));
        for row in x.values().chunks_exact(x.width) {
            activations::encode(activations, row, out);
        }
    }

    fn decode(&self, activations: Activations, bytes: &[u8], width: usize) -> CpuTensor {
        let row = activations::row_bytes(activations, width);
        let mut out = self.tensor(bytes.len() / row, width);
        for (out, bytes) in out.values_mut().chunks_exact_mut(width).zip(bytes.chunks_exact(row)) {
            activations::decode(activations, bytes, out);
        }
        out
    }

    fn bytes(matrix: &CpuMatrix) -> usize {
        match &matrix.held {
            Held::Mapped(view) => view.bytes().len(),
            Held::Bf16(values) => size_of_val(&values[..]),
            Held::F32(values) => size_of_val(&values[..]),
            Held::Int8(_) => Int8::bytes_for(matrix.outputs, matrix.inputs),
            Held::Packed(packed) => packed.bytes(),
        }
    }

    fn forbid(&self, x: &mut CpuTensor, first: usize) {
        let width = x.width;
        x.values_mut().chunks_exact_mut(width).for_each(|row| row[first..].fill(f32::NEG_INFINITY));
    }

    fn argmax(&self, x: &CpuTensor, row: usize) -> (u32, f32) {
        let best = logits::argmax(&self.pool, x.row(row));
        (best, x.row(row)[best as usize])
    }

    fn log_softmax_top(&self, x: &CpuTensor, row: usize, token: u32, n: usize) -> (f32, Vec<(u32, f32)>) {
        logits::log_softmax_top(&self.pool, x.row(row), token, n)
    }

    fn copy_row(&self, x: &CpuTensor, row: usize, out: &mut Vec<f32>) {
        out.clear();
        out.extend_from_slice(x.row(row));
    }
}
