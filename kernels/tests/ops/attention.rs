//! Attention over a paged cache.

use coterie_kernels::cpu::attention::{self, Sequence, Shape};
use coterie_kernels::cpu::pool::Pool;
use std::ops::Range;

use super::cases::{Case, Inputs};
use super::random::Random;

/// One sequence: the rows of this call, and its tokens' keys and values, `[context, kv_heads, head_dim]`.
pub struct Story {
    pub rows: usize,
    pub context: usize,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub blocks: Vec<u32>,
}

/// Sequences whose blocks are scattered over one cache.
pub struct Stories {
    pub shape: Shape,
    pub all: Vec<Story>,
    pub q: Vec<f32>,
    pub sinks: Option<Vec<f32>>,
    pub blocks: usize,
}

impl Stories {
    /// `sizes` are (rows of the call, context) per sequence.
    pub fn new(inputs: Inputs, shape: Shape, sinks: bool, sizes: &[(usize, usize)]) -> Stories {
        let mut random = Random::new(shape.head_dim as u64);
        let needed = |context: usize| context.div_ceil(shape.block_size);
        let blocks: usize = sizes.iter().map(|(_, context)| needed(*context)).sum();
        let mut order = random.permutation(blocks);
        let all = sizes.iter().map(|&(rows, context)| Story {
            rows,
            context,
            k: inputs.of(random.values(context * shape.kv_heads * shape.head_dim)),
            v: inputs.of(random.values(context * shape.kv_heads * shape.head_dim)),
            blocks: order.split_off(order.len() - needed(context)),
        });
        let all: Vec<Story> = all.collect();
        let rows: usize = sizes.iter().map(|(rows, _)| rows).sum();
        let q = random.values(rows * shape.q_heads * shape.head_dim).iter().map(|q| q * 3.0).collect();
        let q = inputs.of(q);
        let sinks = sinks.then(|| random.values(shape.q_heads).iter().map(|sink| sink * 9.0).collect());
        Stories { shape, all, q, sinks, blocks }
    }

    /// Caches that hold every token; places that hold none are NaN.
    pub fn caches(&self, pool: &Pool) -> (Vec<f32>, Vec<f32>) {
        let floats = self.blocks * self.shape.block_len();
        let (mut keys, mut values) = (vec![f32::NAN; floats], vec![f32::NAN; floats]);
        for story in &self.all {
            let size = self.shape.block_size;
            let slot =
                |position: usize| story.blocks[position / size] * size as u32 + (position % size) as u32;
            let slots: Vec<u32> = (0..story.context).map(slot).collect();
            attention::kv_store(pool, &mut keys, &mut values, &story.k, &story.v, &slots, &self.shape);
        }
        (keys, values)
    }

    pub fn run(&self, pool: &Pool) -> Vec<f32> {
        let (keys, values) = self.caches(pool);
        let mut first = 0;
        let sequences = self.all.iter().map(|story| {
            first += story.rows;
            Sequence { rows: first - story.rows..first, block_table: &story.blocks, context: story.context }
        });
        let sequences: Vec<Sequence<'_>> = sequences.collect();
        let mut out = vec![f32::NAN; self.q.len()];
        let sinks = self.sinks.as_deref();
        attention::paged(pool, &mut out, &self.q, [&keys, &values], sinks, &sequences, &self.shape);
        out
    }

    /// Calls `each` for every row and head with q, its story, its head and the positions it sees.
    fn rows(&self, mut each: impl FnMut(&[f32], &Story, usize, Range<usize>)) {
        let mut q = self.q.chunks(self.shape.head_dim);
        for story in &self.all {
            for row in 0..story.rows {
                for head in 0..self.shape.q_heads {
                    let end = story.context - story.rows + row + 1;
                    let start = self.shape.window.map_or(0, |window| end.saturating_sub(window));
                    each(q.next().expect("q has every row and head"), story, head, start..end);
                }
            }
        }
    }
}

/// Prefill from the start, a later chunk of a prefill, and decodes, short and over several chunks of keys.
pub fn paged(inputs: Inputs, shape: Shape, sinks: bool) -> Case {
    let stories =
        Stories::new(inputs, shape, sinks, &[(37, 37), (1, 1), (1, 700), (5, 260), (1, 33), (70, 330)]);
    let (d, scale, stride) = (shape.head_dim, shape.scale, shape.kv_heads * shape.head_dim);
    let (mut specified, mut exact) = (Vec::new(), Vec::new());
    stories.rows(|q, story, head, keys| {
        let kv_head = head / (shape.q_heads / shape.kv_heads);
        let sink = stories.sinks.as_ref().map(|sinks| sinks[head]);
        let at = |p: usize, i: usize| p * stride + kv_head * d + i;
        let (key, value) = (|p, i| story.k[at(p, i)], |p, i| story.v[at(p, i)]);
        let mut out = vec![f32::NAN; d];
        attention::reference(&mut out, q, key, value, keys.clone(), scale, sink);
        specified.extend(out);
        let score = |p| (0..d).map(|i| f64::from(q[i]) * f64::from(key(p, i))).sum::<f64>();
        let weights: Vec<f64> = keys.clone().map(|p| (score(p) * f64::from(scale)).exp()).collect();
        let sum = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| f64::from(sink).exp());
        let values = |i| keys.clone().zip(&weights).map(|(p, w)| w * f64::from(value(p, i))).sum::<f64>();
        exact.extend((0..d).map(|i| values(i) / sum));
    });
    Case {
        name: format!("attention {shape:?}, sinks: {sinks}"),
        specified,
        exact,
        bound: 2e-6,
        run: Box::new(move |device| device.attend(&stories)),
    }
}
