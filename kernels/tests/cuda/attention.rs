//! Attention by the kernels: all rows of a call in one launch, and the same spread over chunks of keys; in the form for
//! prefills and in that for decodes. All give the same bits.

use coterie_kernels::cuda::attention::{Attention, CHUNK, Form, Merge, Store, StoreLatents};
use coterie_kernels::cuda::launch::Address;
use half::bf16;

use super::device::unwritten;
use super::machine::Machine;
use super::memory::Memory;
use crate::ops::device::Answer;
use crate::ops::{attention, latent};

/// The rows, context and blocks of each sequence.
struct Sequences {
    first_rows: Memory<u32>,
    contexts: Memory<u32>,
    tables: Memory<u32>,
    table_width: u32,
    count: u32,
    most_rows: u32,
    longest: u32,
}

impl Sequences {
    fn new<'a>(all: impl Iterator<Item = (usize, usize, &'a [u32])> + Clone) -> Sequences {
        let mut first_rows = vec![0];
        all.clone().for_each(|(rows, ..)| first_rows.push(first_rows[first_rows.len() - 1] + rows as u32));
        let contexts: Vec<u32> = all.clone().map(|(_, context, _)| context as u32).collect();
        let table_width = all.clone().map(|(.., blocks)| blocks.len()).max().unwrap_or(0);
        let padded = all.clone().flat_map(|(.., blocks)| {
            let empty = std::iter::repeat_n(u32::MAX, table_width - blocks.len());
            blocks.iter().copied().chain(empty)
        });
        Sequences {
            tables: Memory::of(&padded.collect::<Vec<u32>>()),
            table_width: table_width as u32,
            count: contexts.len() as u32,
            most_rows: all.map(|(rows, ..)| rows as u32).max().unwrap_or(0),
            longest: contexts.iter().copied().max().unwrap_or(0),
            first_rows: Memory::of(&first_rows),
            contexts: Memory::of(&contexts),
        }
    }
}

/// What is the same of every launch of one call.
struct Call<'a> {
    sequences: &'a Sequences,
    attention: Attention,
    /// Values of a head of the result.
    width: usize,
    rows: usize,
}

/// Weights of values are rounded to bf16: 2⁻⁹ each at most, about a third of that on the whole.
const ADDED: f64 = 2e-3;

impl Call<'_> {
    fn run(&self, device: &Machine, form: Form, spread: bool) -> Option<Vec<f32>> {
        let (heads, rows) = (self.attention.q_heads as usize, self.rows);
        let out = unwritten(rows * heads * self.width);
        let chunks = if spread { self.sequences.longest.div_ceil(CHUNK) } else { 1 };
        let parts = unwritten(rows * heads * chunks as usize * (self.width + 2));
        let parts = if spread { parts.address() } else { 0 };
        let attention = Attention { out: out.address(), parts, chunks, ..self.attention };
        let Sequences { count, most_rows, .. } = *self.sequences;
        device.launch(&attention.launch(form, count, most_rows)?);
        if spread {
            let merge = Merge {
                parts,
                sinks: attention.sinks,
                first_rows: attention.first_rows,
                contexts: attention.contexts,
                out: out.address(),
                heads: heads as u32,
                chunks,
                width: self.width as u32,
                window: attention.window,
            };
            device.launch(&merge.launch(count, most_rows));
        }
        Some(out.values())
    }

    fn in_all_forms(&self, device: &Machine, forms: &[Form]) -> Answer {
        let first = self.run(device, forms[0], false)?;
        for form in forms {
            for spread in [false, true] {
                let other = self.run(device, *form, spread)?;
                let same = first.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{form:?}, spread over chunks: {spread}: other bits than {:?}", forms[0]);
            }
        }
        Some((first, ADDED))
    }
}

/// A cache that nobody has written.
fn cache(length: usize) -> Memory<bf16> {
    Memory::of(&vec![bf16::NAN; length])
}

fn slots(blocks: &[u32], block_size: usize, context: usize) -> Memory<u32> {
    let slot = |p: usize| blocks[p / block_size] * block_size as u32 + (p % block_size) as u32;
    Memory::of(&(0..context).map(slot).collect::<Vec<u32>>())
}

impl Machine {
    pub fn attend(&self, stories: &attention::Stories) -> Answer {
        let attention::Stories { shape, all, q, sinks, blocks } = stories;
        let [q_heads, kv_heads, head_dim, block_size] =
            [shape.q_heads, shape.kv_heads, shape.head_dim, shape.block_size].map(|size| size as u32);
        let [keys, values] = [0, 1].map(|_| cache(blocks * shape.block_len()));
        for story in all {
            let (k, v) = (Memory::of(&story.k), Memory::of(&story.v));
            let slots = slots(&story.blocks, shape.block_size, story.context);
            let store = Store {
                k: k.address(),
                v: v.address(),
                keys: keys.address(),
                values: values.address(),
                slots: slots.address(),
                kv_heads,
                head_dim,
                block_size,
            };
            self.launch(&store.launch(story.context as u32));
        }
        let sequences =
            Sequences::new(all.iter().map(|story| (story.rows, story.context, &story.blocks[..])));
        let (rows, q, sinks) =
            (q.len() / (shape.q_heads * shape.head_dim), Memory::of(q), sinks.as_deref().map(Memory::of));
        let attention = Attention {
            values: values.address(),
            sinks: sinks.as_ref().map_or(0, Memory::address),
            window: shape.window.unwrap_or(0) as u32,
            ..base(&q, keys.address(), &sequences, [q_heads, kv_heads, block_size], shape.scale)
        };
        let call = Call { sequences: &sequences, attention, width: shape.head_dim, rows };
        call.in_all_forms(self, &[Form::Prefill(head_dim), Form::Decode(head_dim)])
    }

    pub fn attend_latent(&self, stories: &latent::Stories) -> Answer {
        let latent::Stories { shape, all, q, blocks } = stories;
        if (shape.latent, shape.rope) != (512, 64) {
            return None;
        }
        let keys = cache(blocks * shape.block_len());
        for story in all {
            let (latents, ropes) = (Memory::of(&story.latents), Memory::of(&story.ropes));
            let slots = slots(&story.blocks, shape.block_size, story.context);
            let store = StoreLatents {
                latents: latents.address(),
                ropes: ropes.address(),
                cache: keys.address(),
                slots: slots.address(),
                latent: shape.latent as u32,
                rope: shape.rope as u32,
            };
            self.launch(&store.launch(story.context as u32));
        }
        let sequences =
            Sequences::new(all.iter().map(|story| (story.rows, story.context, &story.blocks[..])));
        let (rows, q) = (q.len() / (shape.heads * shape.width()), Memory::of(q));
        let sizes = [shape.heads as u32, 1, shape.block_size as u32];
        let attention = base(&q, keys.address(), &sequences, sizes, shape.scale);
        let call = Call { sequences: &sequences, attention, width: shape.latent, rows };
        call.in_all_forms(self, &[Form::Latent])
    }
}

fn base(
    q: &Memory<f32>,
    keys: Address,
    sequences: &Sequences,
    [q_heads, kv_heads, block_size]: [u32; 3],
    scale: f32,
) -> Attention {
    Attention {
        q: q.address(),
        keys,
        values: 0,
        sinks: 0,
        first_rows: sequences.first_rows.address(),
        contexts: sequences.contexts.address(),
        tables: sequences.tables.address(),
        out: 0,
        parts: 0,
        q_heads,
        kv_heads,
        block_size,
        table_width: sequences.table_width,
        chunks: 1,
        window: 0,
        scale,
    }
}
