//! Attention of decodes: a row a sequence, over blocks that lie anywhere in the cache.

use coterie_kernels::cuda::attention::{Attention, CHUNK, Form, LATENT, Merge};
use coterie_kernels::cuda::device::{DeviceError, Memory};
use coterie_kernels::cuda::launch::Address;
use coterie_kernels::cuda::matmul::Format;
use coterie_kernels::cuda::timed::Timed;

use super::figure::Figure;
use super::pool::Pool;
use super::random::Random;
use super::sizes::Heads;
use super::{Failure, Suite, Wrong, read, within};

/// Tokens of a block.
const BLOCK: usize = 16;

/// Far from every number of blocks, and prime.
const SPREAD: usize = 1_000_003;

/// The caches of one layer.
struct Cache<'a, D: Timed> {
    heads: Heads,
    pool: &'a Pool<D>,
    /// Blocks that there are.
    blocks: usize,
}

/// Sequences of one length.
struct Decode<D: Timed> {
    sequences: usize,
    context: usize,
    q: Vec<f32>,
    queries: Memory<D>,
    first_rows: Memory<D>,
    contexts: Memory<D>,
    tables: Memory<D>,
    /// Sets of blocks that are read by turns.
    sets: usize,
    out: Memory<D>,
    parts: Memory<D>,
}

impl<D: Timed> Cache<'_, D> {
    /// Values of a query's head, and of an answer's.
    fn widths(&self) -> [usize; 2] {
        let latent = [LATENT[0] + LATENT[1], LATENT[0]];
        if self.heads.kv_heads.is_some() { [self.heads.head_dim; 2] } else { latent }
    }

    fn kv_heads(&self) -> usize {
        self.heads.kv_heads.unwrap_or(1)
    }

    /// Bytes of a block in one of the caches.
    fn block_bytes(&self) -> usize {
        self.kv_heads() * BLOCK * self.widths()[0] * 2
    }

    /// Keys and values, or latents that are both.
    fn caches(&self) -> usize {
        if self.heads.kv_heads.is_some() { 2 } else { 1 }
    }

    /// Which block a sequence has in a place, of set `set`.
    fn block(&self, [set, sequences, sequence]: [usize; 3], per_sequence: usize, i: usize) -> usize {
        ((set * sequences + sequence) * per_sequence + i) * SPREAD % self.blocks
    }

    /// Where cache 0 or 1 has the key or value of a head in a block.
    fn place(&self, cache: usize, block: usize, head: usize, token: usize) -> usize {
        let before = (cache * self.blocks + block) * self.block_bytes();
        before + (head * BLOCK + token) * self.widths()[0] * 2
    }
}

impl<D: Timed> Suite<'_, D> {
    pub fn attention(&mut self) -> Result<(), Failure> {
        let mut random = Random::new(7);
        let mut wrong = Wrong::default();
        // The most sequences, and room to walk through.
        let most = self.sizes.decode.iter().max().copied().unwrap_or(1) * self.sizes.context;
        for heads in self.sizes.heads.clone() {
            let bytes_per_token = bytes_per_token(&heads);
            let bytes = 2 * most * bytes_per_token + self.sizes.walked;
            let mut pool = Pool::new(&self.device, 2 * bytes, self.sizes.period)?;
            pool.fill(&mut random, Format::Bf16, 1.0)?;
            let blocks = bytes / (bytes_per_token * BLOCK);
            let cache = Cache { heads, pool: &pool, blocks };
            for sequences in self.sizes.decode.clone() {
                wrong.note(self.decode(&mut random, &cache, sequences))?;
            }
        }
        wrong.failure()
    }

    fn decode(&mut self, random: &mut Random, cache: &Cache<'_, D>, sequences: usize) -> Result<(), Failure> {
        let decode = self.sequences(random, cache, sequences)?;
        self.attend(cache, &decode, 0)?;
        let error = self.check_attention(random, cache, &decode)?;
        let time = self.watch.time(2, |run| self.attend(cache, &decode, run))?;
        let Heads { name, q_heads, .. } = cache.heads;
        let [keys, values] = cache.widths();
        let rows = sequences * q_heads * (keys + values) * 4;
        let cached = sequences * self.sizes.context * bytes_per_token(&cache.heads) * cache.caches();
        (self.tell)(Figure {
            op: "attention",
            of: format!("{name}, {} keys", self.sizes.context),
            format: "bf16".to_owned(),
            rows: sequences,
            time,
            bytes: cached + rows,
            flop: 2 * sequences * q_heads * self.sizes.context * (keys + values),
            error,
            note: String::new(),
        });
        Ok(())
    }

    fn sequences(
        &self,
        random: &mut Random,
        cache: &Cache<'_, D>,
        sequences: usize,
    ) -> Result<Decode<D>, DeviceError> {
        let context = self.sizes.context;
        let ([keys, values], per_sequence) = (cache.widths(), context.div_ceil(BLOCK));
        let used = sequences * per_sequence * cache.block_bytes() * cache.caches();
        let sets = self.sizes.walked.div_ceil(used).clamp(1, 64);
        let tables: Vec<u32> = (0..sets * sequences * per_sequence)
            .map(|i| {
                let (sequence, set) = (i / per_sequence % sequences, i / per_sequence / sequences);
                cache.block([set, sequences, sequence], per_sequence, i % per_sequence) as u32
            })
            .collect();
        let heads = sequences * cache.heads.q_heads;
        let q = random.values(heads * keys);
        let chunks = context.div_ceil(CHUNK as usize);
        Ok(Decode {
            sequences,
            context,
            queries: self.memory(&q)?,
            q,
            first_rows: self.memory(&(0..=sequences as u32).collect::<Vec<u32>>())?,
            contexts: self.memory(&vec![context as u32; sequences])?,
            tables: self.memory(&tables)?,
            sets,
            out: self.unwritten(heads * values * 4)?,
            parts: self.unwritten(heads * chunks * (values + 2) * 4)?,
        })
    }

    fn attend(&self, cache: &Cache<'_, D>, decode: &Decode<D>, run: usize) -> Result<(), DeviceError> {
        let per_sequence = decode.context.div_ceil(BLOCK);
        let table = run % decode.sets * decode.sequences * per_sequence;
        let latent = cache.heads.kv_heads.is_none();
        let attention = Attention {
            q: decode.queries.address(),
            keys: cache.pool.address(),
            values: if latent { 0 } else { cache.pool.address() + cache.place(1, 0, 0, 0) as Address },
            sinks: 0,
            first_rows: decode.first_rows.address(),
            contexts: decode.contexts.address(),
            tables: decode.tables.address() + (4 * table) as Address,
            out: decode.out.address(),
            parts: decode.parts.address(),
            q_heads: cache.heads.q_heads as u32,
            kv_heads: cache.kv_heads() as u32,
            block_size: BLOCK as u32,
            table_width: per_sequence as u32,
            chunks: decode.context.div_ceil(CHUNK as usize) as u32,
            window: 0,
            scale: scale(cache),
        };
        let form = if latent { Form::Latent } else { Form::Decode(cache.heads.head_dim as u32) };
        let merge = Merge {
            parts: attention.parts,
            sinks: 0,
            first_rows: attention.first_rows,
            contexts: attention.contexts,
            out: attention.out,
            heads: attention.q_heads,
            chunks: attention.chunks,
            width: cache.widths()[1] as u32,
            window: 0,
        };
        let sequences = decode.sequences as u32;
        let Some(launch) = attention.launch(form, sequences, 1) else {
            let why = format!("no kernel has heads of {}", cache.heads.head_dim);
            return Err(DeviceError::Failed { what: "attention", why });
        };
        self.launch(&launch)?;
        self.launch(&merge.launch(sequences, 1))
    }

    /// Compares some heads with f64.
    fn check_attention(
        &self,
        random: &mut Random,
        cache: &Cache<'_, D>,
        decode: &Decode<D>,
    ) -> Result<Option<f64>, Failure> {
        let ([keys, width], per_sequence) = (cache.widths(), decode.context.div_ceil(BLOCK));
        let (mut got, mut exact) = (Vec::new(), Vec::new());
        for i in 0..self.sizes.places.div_ceil(6) {
            let (sequence, head) = if i == 0 {
                (decode.sequences - 1, cache.heads.q_heads - 1)
            } else {
                (random.below(decode.sequences), random.below(cache.heads.q_heads))
            };
            let row = sequence * cache.heads.q_heads + head;
            let kv_head = head / (cache.heads.q_heads / cache.kv_heads());
            let at = |of: usize, token: usize| {
                let set = [0, decode.sequences, sequence];
                cache.place(of, cache.block(set, per_sequence, token / BLOCK), kv_head, token % BLOCK)
            };
            let q = &decode.q[row * keys..][..keys];
            let score = |token: usize| {
                let first = at(0, token);
                let dot = q.iter().enumerate().map(|(i, q)| f64::from(*q) * cache.pool.bf16(first + 2 * i));
                dot.sum::<f64>() * f64::from(scale(cache))
            };
            let scores: Vec<f64> = (0..decode.context).map(score).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|score| (score - most).exp()).sum();
            let mut sum = vec![0.0; width];
            for (token, score) in scores.iter().enumerate() {
                let (first, weight) = (at(cache.caches() - 1, token), (score - most).exp() / total);
                for (i, sum) in sum.iter_mut().enumerate() {
                    *sum += weight * cache.pool.bf16(first + 2 * i);
                }
            }
            exact.extend(sum);
            let out = read(&decode.out, row * width * 4, width, f32::from_le_bytes)?;
            got.extend(out.into_iter().map(f64::from));
        }
        // A softmax's weights are rounded to bf16, and so are queries.
        within(&format!("attention of {}, {} rows", cache.heads.name, decode.sequences), &got, &exact, 1e-2)
    }
}

/// Of keys or of values.
fn bytes_per_token(heads: &Heads) -> usize {
    heads.kv_heads.unwrap_or(1) * heads.head_dim * 2
}

fn scale<D: Timed>(cache: &Cache<'_, D>) -> f32 {
    (cache.widths()[0] as f32).sqrt().recip()
}
