//! Attention over paged caches of bf16. Heads that are narrower than those that kernels take are made wider with zeros, which
//! change neither a score nor a sum.

use super::Cuda;
use super::batch::{CudaBatch, Run, SPREAD};
use super::memory::CudaTensor;
use super::weights::CudaVector;
use crate::backend::{AttentionShape, LatentShape};
use crate::block_pool::BLOCK_SIZE;
use crate::load_error::LoadError;
use coterie_kernels::cuda::attention::{self, Attention, Form, LATENT, Merge, Store, StoreLatents};
use coterie_kernels::cuda::device::{Device, Memory};
use coterie_kernels::cuda::launch::Address;

/// One layer's keys and values, each `[blocks, kv_heads, block size, width]`.
pub struct CudaKvBlocks<D: Device> {
    keys: Memory<D>,
    values: Memory<D>,
    /// Of a head: its own values, then zeros.
    width: usize,
}

/// One layer's `[blocks, block size, latent + rope]`, both as wide as kernels take them.
pub struct CudaLatentBlocks<D: Device>(Memory<D>);

/// Bytes of keys and values that a token leaves in a layer's cache.
pub(super) fn bytes_per_token(shape: &AttentionShape, width: usize) -> usize {
    2 * shape.kv_heads * width * 2
}

/// Bytes that a token leaves in a layer's cache of latents.
pub(super) const LATENT_BYTES_PER_TOKEN: usize = (LATENT[0] + LATENT[1]) * 2;

/// Bytes that a chunk of keys leaves of a row's head: its sums, its maximum and its sum of weights.
pub(super) fn part_bytes(width: usize) -> usize {
    (width + 2) * size_of::<f32>()
}

/// What the launches of one call have in common.
struct Call {
    q: Address,
    keys: Address,
    values: Address,
    sinks: Address,
    out: Address,
    heads: usize,
    kv_heads: usize,
    /// Values of a query's head, and of an answer's.
    widths: [usize; 2],
    window: usize,
    scale: f32,
}

impl<D: Device> Cuda<D> {
    pub(super) fn new_kv_blocks(
        &self,
        shape: &AttentionShape,
        blocks: usize,
    ) -> Result<CudaKvBlocks<D>, LoadError> {
        let limit = attention::WIDTHS[attention::WIDTHS.len() - 1];
        let width = attention::width(shape.head_dim).ok_or(LoadError::NoKernel {
            what: "the width of a head",
            found: shape.head_dim,
            limit,
        })?;
        let bytes = (blocks * BLOCK_SIZE).checked_mul(bytes_per_token(shape, width) / 2);
        let bytes = bytes.ok_or(LoadError::CacheTooLarge { blocks })?;
        let half = || Memory::new(&self.device, bytes);
        Ok(CudaKvBlocks { keys: half()?, values: half()?, width })
    }

    pub(super) fn new_latent_blocks(&self, blocks: usize) -> Result<CudaLatentBlocks<D>, LoadError> {
        let bytes = (blocks * BLOCK_SIZE).checked_mul(LATENT_BYTES_PER_TOKEN);
        let bytes = bytes.ok_or(LoadError::CacheTooLarge { blocks })?;
        Ok(CudaLatentBlocks(Memory::new(&self.device, bytes)?))
    }

    /// Puts k and v into the cache, then attends.
    pub(super) fn attend_blocks(
        &self,
        qkv: [&CudaTensor<D>; 3],
        cache: &CudaKvBlocks<D>,
        batch: &CudaBatch<D>,
        shape: &AttentionShape,
        sinks: Option<&CudaVector<D>>,
    ) -> CudaTensor<D> {
        let AttentionShape { heads, kv_heads, head_dim, scale, window } = *shape;
        let width = cache.width;
        let wide = (head_dim < width).then(|| qkv.map(|x| self.wider(x, head_dim, width)));
        let [q, k, v] = wide.as_ref().map_or(qkv, |wide| wide.each_ref());
        let store = Store {
            k: k.address(),
            v: v.address(),
            keys: cache.keys.address(),
            values: cache.values.address(),
            slots: batch.slots,
            kv_heads: kv_heads as u32,
            head_dim: width as u32,
            block_size: BLOCK_SIZE as u32,
        };
        self.launch(&store.launch(batch.rows as u32));
        let out = self.tensor(q.rows, heads * width);
        let call = Call {
            q: q.address(),
            keys: cache.keys.address(),
            values: cache.values.address(),
            sinks: sinks.map_or(0, |sinks| sinks.memory.address()),
            out: out.address(),
            heads,
            kv_heads,
            widths: [width; 2],
            window: window.unwrap_or(0),
            scale,
        };
        self.attend_runs(&call, batch, |run| match run.decodes {
            true => Form::Decode(width as u32),
            false => Form::Prefill(width as u32),
        });
        if head_dim < width { self.part(&out, width, [0, head_dim]) } else { out }
    }

    /// Puts latents and rotated keys into the cache, then attends.
    pub(super) fn attend_latents(
        &self,
        q: &CudaTensor<D>,
        [latent, key]: [&CudaTensor<D>; 2],
        cache: &CudaLatentBlocks<D>,
        batch: &CudaBatch<D>,
        shape: &LatentShape,
    ) -> CudaTensor<D> {
        let LatentShape { heads, latent: width, rope, scale } = *shape;
        let own = [width, rope];
        let wide = (own != LATENT).then(|| {
            let q = self.apart(q, own, LATENT);
            [q, self.wider(latent, width, LATENT[0]), self.wider(key, rope, LATENT[1])]
        });
        let [q, latent, key] = wide.as_ref().map_or([q, latent, key], |wide| wide.each_ref());
        let store = StoreLatents {
            latents: latent.address(),
            ropes: key.address(),
            cache: cache.0.address(),
            slots: batch.slots,
            latent: LATENT[0] as u32,
            rope: LATENT[1] as u32,
        };
        self.launch(&store.launch(batch.rows as u32));
        let out = self.tensor(q.rows, heads * LATENT[0]);
        let call = Call {
            q: q.address(),
            keys: cache.0.address(),
            values: 0,
            sinks: 0,
            out: out.address(),
            heads,
            kv_heads: 1,
            widths: [LATENT[0] + LATENT[1], LATENT[0]],
            window: 0,
            scale,
        };
        self.attend_runs(&call, batch, |_| Form::Latent);
        if width < LATENT[0] { self.part(&out, LATENT[0], [0, width]) } else { out }
    }

    fn attend_runs(&self, call: &Call, batch: &CudaBatch<D>, form: impl Fn(&Run) -> Form) {
        for run in &batch.runs {
            let of_row = |width: usize| (run.rows.start * call.heads * width * size_of::<f32>()) as Address;
            let out = call.out + of_row(call.widths[1]);
            let spread = run.decodes && run.chunks > 1 && run.rows.len() * run.chunks as usize <= SPREAD;
            let chunks = if spread { run.chunks } else { 1 };
            let parts = spread.then(|| {
                let of_row = call.heads * chunks as usize * part_bytes(call.widths[1]);
                self.spare.take(run.rows.len() * of_row)
            });
            let parts_address = parts.as_ref().map_or(0, |parts| parts.address());
            let attention = Attention {
                q: call.q + of_row(call.widths[0]),
                keys: call.keys,
                values: call.values,
                sinks: call.sinks,
                first_rows: run.first_rows,
                contexts: run.contexts,
                tables: run.tables,
                out,
                parts: parts_address,
                q_heads: call.heads as u32,
                kv_heads: call.kv_heads as u32,
                block_size: BLOCK_SIZE as u32,
                table_width: run.table_width,
                chunks,
                window: call.window as u32,
                scale: call.scale,
            };
            let launch = attention.launch(form(run), run.sequences, run.most_rows);
            self.launch(&launch.expect("caches are of widths that kernels take"));
            if spread {
                let merge = Merge {
                    parts: parts_address,
                    sinks: call.sinks,
                    first_rows: run.first_rows,
                    contexts: run.contexts,
                    out,
                    heads: call.heads as u32,
                    chunks,
                    width: call.widths[1] as u32,
                    window: call.window as u32,
                };
                self.launch(&merge.launch(run.sequences, run.most_rows));
            }
        }
    }
}
