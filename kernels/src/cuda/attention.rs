//! Attention over a paged cache of bf16.
//!
//! Cache layout: keys and values are `[block, kv_heads, block_size, head_dim]` each, latents `[block, block_size, latent + rope]`.

use super::launch::{Address, Launch};

/// Tokens whose weights are folded into a row's sums at once, counted from a sequence's beginning.
pub const CHUNK: u32 = 256;

/// Widths of a head that there are kernels for.
pub const WIDTHS: [usize; 6] = [64, 80, 96, 128, 192, 256];

/// Values of a latent, and of its rotated key, that there are kernels for.
pub const LATENT: [usize; 2] = [512, 64];

/// The width of a kernel for heads of `head_dim` values, behind which are zeros. None if they are too wide.
pub fn width(head_dim: usize) -> Option<usize> {
    WIDTHS.into_iter().find(|width| head_dim <= *width)
}

/// The parameters of the kernels in `attention.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Attention {
    /// `[rows, q_heads, head_dim]`, f32.
    pub q: Address,
    /// The keys' cache, or the latents'.
    pub keys: Address,
    /// The values' cache; none for latents.
    pub values: Address,
    /// None, or `[q_heads]`.
    pub sinks: Address,
    /// `[sequences + 1]`: where each sequence's rows begin.
    pub first_rows: Address,
    /// `[sequences]`: tokens in the cache, these rows' own counted.
    pub contexts: Address,
    /// `[sequences, table_width]`: the blocks of each.
    pub tables: Address,
    /// `[rows, q_heads, head_dim]`, f32; for latents `[rows, q_heads, latent]`.
    pub out: Address,
    /// None, or `[rows, q_heads, chunks, width of out + 2]`, f32: then each [`CHUNK`] has blocks of its own, and [`Merge`]
    /// makes `out` of what they leave here.
    pub parts: Address,
    /// Query heads.
    pub q_heads: u32,
    /// Heads of the cache; 1 for latents.
    pub kv_heads: u32,
    /// Tokens of a block.
    pub block_size: u32,
    /// Places for blocks of one sequence.
    pub table_width: u32,
    /// Without parts 1; else as many [`CHUNK`]s as the longest context has.
    pub chunks: u32,
    /// How many tokens a token sees, itself counted; 0 if all before it.
    pub window: u32,
    /// Factor on q·k.
    pub scale: f32,
}

/// Which attention: what it keeps of a token, and how many rows a sequence has in the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Keys and values of this head_dim, sequences of many rows.
    Prefill(u32),
    /// Keys and values of this head_dim, sequences of a row or a few.
    Decode(u32),
    /// [`LATENT`].
    Latent,
}

/// A kernel: its name, tiles of 16 rows, warps that share a tile, width of keys and of values, stages of 32 keys.
type Kernel = (&'static str, u32, u32, u32, u32, usize);

fn kernel(form: Form) -> Option<Kernel> {
    Some(match form {
        Form::Prefill(64) => ("attention_64_prefill", 4, 1, 64, 64, 2),
        Form::Decode(64) => ("attention_64_decode", 1, 4, 64, 64, 4),
        Form::Prefill(80) => ("attention_80_prefill", 4, 1, 80, 80, 2),
        Form::Decode(80) => ("attention_80_decode", 1, 2, 80, 80, 4),
        Form::Prefill(96) => ("attention_96_prefill", 4, 1, 96, 96, 2),
        Form::Decode(96) => ("attention_96_decode", 1, 1, 96, 96, 4),
        Form::Prefill(128) => ("attention_128_prefill", 4, 1, 128, 128, 2),
        Form::Decode(128) => ("attention_128_decode", 1, 4, 128, 128, 4),
        Form::Prefill(192) => ("attention_192_prefill", 2, 2, 192, 192, 2),
        Form::Decode(192) => ("attention_192_decode", 1, 4, 192, 192, 3),
        Form::Prefill(256) => ("attention_256_prefill", 2, 4, 256, 256, 2),
        Form::Decode(256) => ("attention_256_decode", 1, 4, 256, 256, 2),
        Form::Latent => ("attention_latent", 1, 4, 576, 512, 2),
        Form::Prefill(_) | Form::Decode(_) => return None,
    })
}

impl Attention {
    /// Attention of `sequences` sequences, the longest of which has `most_rows` rows here. None if there is no kernel of this
    /// form.
    pub fn launch(self, form: Form, sequences: u32, most_rows: u32) -> Option<Launch<Attention>> {
        let (kernel, tiles, warps, keys, values, stages) = kernel(form)?;
        let rows = most_rows * (self.q_heads / self.kv_heads);
        // Rows in shared memory are of whole 128 bytes.
        let [key_row, value_row] = [keys, values].map(|width| width.next_multiple_of(64) as usize * 2);
        let value_rows = if form == Form::Latent { 16 } else { 32 * value_row };
        let scores = if warps == 1 { 16 } else { tiles as usize * 16 * 40 * 4 };
        Some(Launch {
            kernel,
            grid: [rows.div_ceil(16 * tiles), self.kv_heads, sequences * self.chunks],
            block: 32 * tiles * warps,
            shared: tiles as usize * 16 * key_row + stages * (32 * key_row + value_rows) + scores,
            parameters: self,
        })
    }
}

/// The parameters of `attention_merge`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Merge {
    /// What [`Attention`] left.
    pub parts: Address,
    /// As there.
    pub sinks: Address,
    /// As there.
    pub first_rows: Address,
    /// As there.
    pub contexts: Address,
    /// `[rows, heads, width]`
    pub out: Address,
    /// Query heads.
    pub heads: u32,
    /// As there.
    pub chunks: u32,
    /// Values of a head.
    pub width: u32,
    /// As there.
    pub window: u32,
}

impl Merge {
    /// Folds the chunks of every row.
    pub fn launch(self, sequences: u32, most_rows: u32) -> Launch<Merge> {
        let grid = [most_rows, self.heads, sequences];
        let shared = 4 * (3 * 128 + 4);
        Launch { kernel: "attention_merge", grid, block: 128, shared, parameters: self }
    }
}

/// The parameters of `store_keys_and_values`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Store {
    /// `[rows, kv_heads, head_dim]`, f32.
    pub k: Address,
    /// The same.
    pub v: Address,
    /// The keys' cache.
    pub keys: Address,
    /// The values' cache.
    pub values: Address,
    /// `[rows]`: block · block_size + offset, or [`NO_SLOT`](super::launch::NO_SLOT).
    pub slots: Address,
    /// Heads of the cache.
    pub kv_heads: u32,
    /// Values of a head.
    pub head_dim: u32,
    /// Tokens of a block.
    pub block_size: u32,
}

impl Store {
    /// Puts `rows` rows to their slots.
    pub fn launch(self, rows: u32) -> Launch<Store> {
        Launch {
            kernel: "store_keys_and_values",
            grid: [rows, 1, 1],
            block: 128,
            shared: 0,
            parameters: self,
        }
    }
}

/// The parameters of `store_latents`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StoreLatents {
    /// `[rows, latent]`, f32.
    pub latents: Address,
    /// `[rows, rope]`, f32.
    pub ropes: Address,
    /// The latents' cache.
    pub cache: Address,
    /// `[rows]`: block · block_size + offset, or [`NO_SLOT`](super::launch::NO_SLOT).
    pub slots: Address,
    /// Values of a latent.
    pub latent: u32,
    /// Values of a rotated key.
    pub rope: u32,
}

impl StoreLatents {
    /// Puts `rows` rows to their slots.
    pub fn launch(self, rows: u32) -> Launch<StoreLatents> {
        Launch { kernel: "store_latents", grid: [rows, 1, 1], block: 128, shared: 0, parameters: self }
    }
}
