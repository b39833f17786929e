//! Attention over a paged cache.

use coterie_kernels::cpu::attention::{self, Sequence, Shape};
use coterie_kernels::cpu::pool::Pool;

use super::cases::Case;
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
    blocks: usize,
}

impl Stories {
    /// `sizes` are (rows of the call, context) per sequence.
    pub fn new(shape: Shape, sizes: &[(usize, usize)]) -> Stories {
        let mut random = Random::new(shape.head_dim as u64);
        let needed = |context: usize| context.div_ceil(shape.block_size);
        let blocks: usize = sizes.iter().map(|(_, context)| needed(*context)).sum();
        let mut order = random.permutation(blocks);
        let all = sizes.iter().map(|&(rows, context)| Story {
            rows,
            context,
            k: random.values(context * shape.kv_heads * shape.head_dim),
            v: random.values(context * shape.kv_heads * shape.head_dim),
            blocks: order.split_off(order.len() - needed(context)),
        });
        let all: Vec<Story> = all.collect();
        let rows: usize = sizes.iter().map(|(rows, _)| rows).sum();
        let q = random.values(rows * shape.q_heads * shape.head_dim).iter().map(|q| q * 3.0).collect();
        Stories { shape, all, q, blocks }
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
        attention::paged(pool, &mut out, &self.q, &keys, &values, &sequences, &self.shape);
        out
    }

    /// Calls `each` for every row and head with q, its story, its KV head and the keys it sees.
    fn rows(&self, mut each: impl FnMut(&[f32], &Story, usize, usize)) {
        let mut q = self.q.chunks(self.shape.head_dim);
        for story in &self.all {
            for row in 0..story.rows {
                for head in 0..self.shape.q_heads {
                    let kv_head = head / (self.shape.q_heads / self.shape.kv_heads);
                    let q = q.next().expect("q has every row and head");
                    each(q, story, kv_head, story.context - story.rows + row + 1);
                }
            }
        }
    }
}

/// Prefill from the start, a later chunk of a prefill, and decodes, short and over several chunks of keys.
pub fn paged(shape: Shape) -> Case {
    let stories = Stories::new(shape, &[(37, 37), (1, 1), (1, 700), (5, 260), (1, 33), (70, 330)]);
    let (d, scale, stride) = (shape.head_dim, shape.scale, shape.kv_heads * shape.head_dim);
    let (mut specified, mut exact) = (Vec::new(), Vec::new());
    stories.rows(|q, story, kv_head, keys| {
        let at = |p: usize, i: usize| p * stride + kv_head * d + i;
        let mut out = vec![f32::NAN; d];
        attention::reference(&mut out, q, |p, i| story.k[at(p, i)], |p, i| story.v[at(p, i)], keys, scale);
        specified.extend(out);
        let score = |p| (0..d).map(|i| f64::from(q[i]) * f64::from(story.k[at(p, i)])).sum::<f64>();
        let weights: Vec<f64> = (0..keys).map(|p| (score(p) * f64::from(scale)).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let value = |i| (0..keys).map(|p| weights[p] * f64::from(story.v[at(p, i)])).sum::<f64>();
        exact.extend((0..d).map(|i| value(i) / sum));
    });
    Case {
        name: format!("attention {shape:?}"),
        specified,
        exact,
        bound: 2e-6,
        run: Box::new(move |pool| stories.run(pool)),
    }
}
