//! Latent attention over a paged cache, and the ops on heads around it.

use coterie_kernels::cpu::attention::Sequence;
use coterie_kernels::cpu::attention::latent::{self, Shape};
use coterie_kernels::cpu::heads;
use coterie_kernels::cpu::pool::Pool;

use super::cases::{Case, Inputs};
use super::random::Random;

/// One sequence: the rows of this call, its tokens' latents and rotated keys, and where they are.
pub struct Story {
    pub rows: usize,
    pub context: usize,
    pub latents: Vec<f32>,
    pub ropes: Vec<f32>,
    pub blocks: Vec<u32>,
}

/// Sequences whose blocks are scattered over one cache.
pub struct Stories {
    pub shape: Shape,
    pub all: Vec<Story>,
    pub q: Vec<f32>,
    pub blocks: usize,
}

impl Stories {
    /// `sizes` are (rows of the call, context) per sequence.
    fn new(inputs: Inputs, shape: Shape, sizes: &[(usize, usize)]) -> Stories {
        let mut random = Random::new(shape.latent as u64);
        let needed = |context: usize| context.div_ceil(shape.block_size);
        let blocks: usize = sizes.iter().map(|(_, context)| needed(*context)).sum();
        let mut order = random.permutation(blocks);
        let all = sizes.iter().map(|&(rows, context)| Story {
            rows,
            context,
            latents: inputs.of(random.values(context * shape.latent)),
            ropes: inputs.of(random.values(context * shape.rope)),
            blocks: order.split_off(order.len() - needed(context)),
        });
        let all: Vec<Story> = all.collect();
        let rows: usize = sizes.iter().map(|(rows, _)| rows).sum();
        let q = inputs.of(random.values(rows * shape.heads * shape.width()));
        Stories { shape, all, q, blocks }
    }

    pub fn run(&self, pool: &Pool) -> Vec<f32> {
        let shape = &self.shape;
        // Places that hold no token are NaN.
        let mut cache = vec![f32::NAN; self.blocks * shape.block_len()];
        for story in &self.all {
            let size = shape.block_size;
            let slot = |p: usize| story.blocks[p / size] * size as u32 + (p % size) as u32;
            let slots: Vec<u32> = (0..story.context).map(slot).collect();
            latent::store(&mut cache, &story.latents, &story.ropes, &slots, shape);
        }
        let mut first = 0;
        let sequences = self.all.iter().map(|story| {
            first += story.rows;
            Sequence { rows: first - story.rows..first, block_table: &story.blocks, context: story.context }
        });
        let sequences: Vec<Sequence<'_>> = sequences.collect();
        let mut out = vec![f32::NAN; self.q.len() / shape.width() * shape.latent];
        latent::paged(pool, &mut out, &self.q, &cache, &sequences, shape);
        out
    }
}

/// Prefill from the start, a later chunk of a prefill, and decodes, short and over several chunks of keys.
pub fn paged(inputs: Inputs, shape: Shape) -> Case {
    let stories = Stories::new(inputs, shape, &[(37, 37), (1, 1), (1, 700), (5, 260), (1, 33), (70, 330)]);
    let Shape { heads, latent, rope, scale, .. } = shape;
    let (mut specified, mut exact) = (Vec::new(), Vec::new());
    let mut q = stories.q.chunks(shape.width());
    for story in &stories.all {
        let row = |p: usize, d: usize| match d.checked_sub(latent) {
            None => story.latents[p * latent + d],
            Some(d) => story.ropes[p * rope + d],
        };
        for keys in (story.context - story.rows + 1..=story.context).flat_map(|k| vec![k; heads]) {
            let q = q.next().expect("q has every row and head");
            let mut out = vec![f32::NAN; latent];
            latent::reference(&mut out, q, row, keys, scale);
            specified.extend(out);
            let score = |p| (0..q.len()).map(|d| f64::from(q[d]) * f64::from(row(p, d))).sum::<f64>();
            let weights: Vec<f64> = (0..keys).map(|p| (score(p) * f64::from(scale)).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let value = |d| (0..keys).map(|p| weights[p] * f64::from(row(p, d))).sum::<f64>();
            exact.extend((0..latent).map(|d| value(d) / sum));
        }
    }
    Case {
        name: format!("latent attention {shape:?}"),
        specified,
        exact,
        bound: 3e-6,
        run: Box::new(move |device| device.attend_latent(&stories)),
    }
}

/// Heads cut in two, put together again the other way round, and brought head by head.
pub fn cut(rows: usize, heads: usize, a: usize, b: usize) -> Case {
    let x = Random::new(3).values(rows * heads * (a + b));
    let mut specified = vec![0.0; x.len()];
    for (at, value) in x.iter().enumerate() {
        let (row, head, d) = (at / (a + b) / heads, at / (a + b) % heads, at % (a + b));
        specified[(head * rows + row) * (a + b) + (d + b) % (a + b)] = *value;
    }
    Case {
        name: format!("heads {rows} {heads} {a} {b}"),
        exact: specified.iter().map(|x| f64::from(*x)).collect(),
        specified,
        bound: 0.0,
        run: Box::new(move |device| {
            let (pool, count) = (device.cpu()?, rows * heads);
            let (mut first, mut second) = (vec![f32::NAN; count * a], vec![f32::NAN; count * b]);
            heads::part(pool, &mut first, &x, a + b, 0, a);
            heads::part(pool, &mut second, &x, a + b, a, b);
            let (mut joined, mut swapped) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
            heads::join(pool, &mut joined, [&second, &first], [b, a]);
            heads::swap(pool, &mut swapped, &joined, rows, heads, a + b);
            Some((swapped, 0.0))
        }),
    }
}
