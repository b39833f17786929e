//! A MoE layer's products: gate and up with the activation, and down, of the experts that random tokens choose.

use coterie_kernels::cpu::fp8;
use coterie_kernels::cuda::device::{DeviceError, Memory};
use coterie_kernels::cuda::launch::{Address, Launch};
use coterie_kernels::cuda::matmul::{Format, Product};
use coterie_kernels::cuda::tiles::{Kind, Table};
use coterie_kernels::cuda::timed::Timed;
use half::bf16;

use super::figure::Figure;
use super::pool::{Pool, poison};
use super::random::Random;
use super::sizes::Experts;
use super::{Failure, Suite, Wrong, read, within};

/// A format, which values share a scale, and about how large scales are so that weights are about 1/16.
struct Stored {
    name: &'static str,
    format: Format,
    scale_rows: usize,
    group: usize,
    scale: f32,
}

const STORED: [Stored; 6] = [
    Stored { name: "bf16", format: Format::Bf16, scale_rows: 1, group: 1 << 20, scale: 1.0 },
    Stored { name: "fp8", format: Format::Fp8, scale_rows: 128, group: 128, scale: 0.125 },
    Stored { name: "int4", format: Format::Int4, scale_rows: 1, group: 128, scale: 0.0156 },
    Stored { name: "int8", format: Format::Int8, scale_rows: 1, group: 64, scale: 0.001 },
    Stored { name: "mxfp4", format: Format::Mxfp4, scale_rows: 1, group: 32, scale: 0.03125 },
    Stored { name: "int4 in groups of 32", format: Format::Int4, scale_rows: 1, group: 32, scale: 0.0156 },
];

/// Of a value, scales not counted.
fn bits(format: Format) -> usize {
    match format {
        Format::Bf16 => 16,
        Format::Int8 | Format::Fp8 => 8,
        Format::Int4 | Format::Mxfp4 => 4,
    }
}

/// Sets of weights that are used by turns at most.
const SETS: usize = 64;

/// The rows of each expert.
struct Rows {
    /// Where each expert's begin.
    offsets: Vec<u32>,
    /// The token that a row is of.
    order: Vec<u32>,
    /// Experts that have rows.
    used: usize,
}

impl Rows {
    fn new(random: &mut Random, tokens: usize, per_token: usize, experts: usize) -> Rows {
        let mut of_expert = vec![Vec::new(); experts];
        for token in 0..tokens as u32 {
            for expert in random.some_of(experts, per_token) {
                of_expert[expert as usize].push(token);
            }
        }
        let mut offsets = vec![0];
        for tokens in &of_expert {
            offsets.push(offsets[offsets.len() - 1] + tokens.len() as u32);
        }
        let used = of_expert.iter().filter(|tokens| !tokens.is_empty()).count();
        Rows { offsets, order: of_expert.concat(), used }
    }

    fn expert_of(&self, row: usize) -> usize {
        self.offsets.partition_point(|first| *first as usize <= row) - 1
    }
}

/// Where matrices are: all of one format in two pools.
struct Weights<'a, D: Timed> {
    stored: &'a Stored,
    values: &'a Pool<D>,
    scales: &'a Pool<D>,
    /// Of a matrix.
    bytes: usize,
    scale_bytes: usize,
}

/// Where number `index` of so many bytes begins.
fn place<D: Timed>(pool: &Pool<D>, index: usize, bytes: usize) -> usize {
    (index * bytes.next_multiple_of(16)) % (pool.bytes() - bytes + 16) / 16 * 16
}

impl<'a, D: Timed> Weights<'a, D> {
    fn new(stored: &'a Stored, [values, scales]: [&'a Pool<D>; 2], model: &Experts) -> Self {
        let size = [model.inner, model.hidden];
        let groups = |n: usize, k: usize| n.div_ceil(stored.scale_rows) * k.div_ceil(stored.group);
        let scale_bytes = match stored.format {
            Format::Bf16 => 0,
            Format::Mxfp4 => groups(size[0], size[1]),
            _ => 4 * groups(size[0], size[1]).max(groups(size[1], size[0])),
        };
        let bytes = size[0] * size[1] * bits(stored.format) / 8;
        Weights { stored, values, scales, bytes, scale_bytes }
    }

    /// Addresses of values and of scales of matrix `index`.
    fn addresses(&self, index: usize) -> [Address; 2] {
        [(self.values, self.bytes), (self.scales, self.scale_bytes.max(16))]
            .map(|(pool, bytes)| pool.address() + place(pool, index, bytes) as Address)
    }

    /// What stands at a place of matrix `index`, of `k` columns.
    fn value(&self, index: usize, [row, column]: [usize; 2], k: usize) -> f64 {
        let Stored { format, group, scale_rows, .. } = *self.stored;
        let (first, at) = (place(self.values, index, self.bytes), row * k + column);
        if format == Format::Bf16 {
            return self.values.bf16(first + 2 * at);
        }
        let byte = self.values.byte(first + at * bits(format) / 8);
        let nibble = byte >> (at % 2 * 4) & 15;
        let code = match format {
            Format::Int8 => f64::from(byte as i8),
            Format::Fp8 => fp8::widen(byte).into(),
            Format::Int4 => f64::from(nibble) - 8.0,
            _ => {
                let size = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][usize::from(nibble & 7)];
                if nibble < 8 { size } else { -size }
            }
        };
        let scale = place(self.scales, index, self.scale_bytes.max(16));
        let at = row / scale_rows * k.div_ceil(group) + column / group;
        code * match format {
            Format::Mxfp4 => f64::from(self.scales.byte(scale + at)) - 127.0,
            _ => return code * self.scales.f32(scale + 4 * at),
        }
        .exp2()
    }
}

/// The layer of one model in one format, and tokens.
struct Layer<'a, D: Timed> {
    model: Experts,
    weights: Weights<'a, D>,
    rows: Rows,
    tokens: usize,
    x: Vec<bf16>,
    inputs: Memory<D>,
    order: Memory<D>,
    offsets: Memory<D>,
    /// Of every set the addresses of gates, ups and downs, and of their scales.
    lists: Memory<D>,
    sets: usize,
    inner: Memory<D>,
    out: Memory<D>,
}

impl<D: Timed> Suite<'_, D> {
    pub fn experts(&mut self) -> Result<(), Failure> {
        let mut random = Random::new(11);
        let most = self.sizes.experts.iter().map(|model| model.inner * model.hidden).max().unwrap_or(0);
        let bytes = self.sizes.weights.max(2 * most);
        let mut values = Pool::new(&self.device, bytes, self.sizes.period)?;
        let mut scales = Pool::new(&self.device, (bytes / 8).max(most / 4), self.sizes.period)?;
        let rows: Vec<usize> = self.sizes.decode.iter().copied().chain([self.sizes.prefill]).collect();
        let mut wrong = Wrong::default();
        for stored in &STORED {
            values.fill(&mut random, stored.format, 1.0 / 16.0)?;
            scales.fill_scales(&mut random, stored.format, stored.scale)?;
            for model in self.sizes.experts.clone() {
                for tokens in rows.clone() {
                    let weights = Weights::new(stored, [&values, &scales], &model);
                    wrong.note(self.layer(&mut random, weights, model, tokens))?;
                }
            }
        }
        wrong.failure()
    }

    fn layer(
        &mut self,
        random: &mut Random,
        weights: Weights<'_, D>,
        model: Experts,
        tokens: usize,
    ) -> Result<(), Failure> {
        let layer = self.prepare(random, weights, model, tokens)?;
        self.product(&layer, 0, true)?;
        self.product(&layer, 0, false)?;
        let error = self.check(random, &layer)?;
        let name = layer.weights.stored.name;
        let Experts { count: here, .. } = layer.model;
        let cut = if here < model.count { format!(" of the model's {}", model.count) } else { String::new() };
        let kernels = [true, false].map(|pair| self.launch_of(&layer, 0, pair).kernel).join(", ");
        let note = format!("{} of {here} experts{cut} have rows; {kernels}", layer.rows.used);
        let figure = |op, time, [bytes, flop]: [usize; 2]| Figure {
            op,
            of: model.name.to_owned(),
            format: name.to_owned(),
            rows: tokens,
            time,
            bytes,
            flop,
            error,
            note: note.clone(),
        };
        let counted = [true, false].map(|pair| layer.counted(pair));
        let both = [0, 1].map(|i| counted[0][i] + counted[1][i]);
        let time = self.watch.time(2, |run| {
            self.product(&layer, run, true)?;
            self.product(&layer, run, false)
        })?;
        (self.tell)(figure("experts", time, both));
        if tokens == self.sizes.prefill {
            for (op, pair, counted) in [("gate and up", true, counted[0]), ("down", false, counted[1])] {
                let time = self.watch.time(1, |run| self.product(&layer, run, pair))?;
                (self.tell)(figure(op, time, counted));
            }
        }
        Ok(())
    }

    fn prepare<'a>(
        &self,
        random: &mut Random,
        weights: Weights<'a, D>,
        model: Experts,
        tokens: usize,
    ) -> Result<Layer<'a, D>, DeviceError> {
        let room = self.sizes.weights / (3 * weights.bytes);
        let model = Experts { count: model.count.min(room.max(model.per_token)), ..model };
        let rows = Rows::new(random, tokens, model.per_token, model.count);
        let used = rows.used * 3 * (weights.bytes + weights.scale_bytes);
        let sets = self.sizes.walked.div_ceil(used).clamp(1, SETS);
        let mut lists = Vec::new();
        for set in 0..sets {
            let all = (0..3 * model.count).map(|i| weights.addresses(set * 3 * model.count + i));
            let all: Vec<[Address; 2]> = all.collect();
            lists.extend(all.iter().map(|[values, _]| *values).chain(all.iter().map(|[_, scales]| *scales)));
        }
        let x: Vec<bf16> = random.values(tokens * model.hidden).into_iter().map(bf16::from_f32).collect();
        let choices = rows.order.len();
        Ok(Layer {
            inputs: self.memory(&x)?,
            order: self.memory(&rows.order)?,
            offsets: self.memory(&rows.offsets)?,
            lists: self.memory(&lists)?,
            inner: self.unwritten(choices * model.inner * 2)?,
            out: self.unwritten(choices * model.hidden * 4)?,
            model,
            weights,
            rows,
            tokens,
            x,
            sets,
        })
    }

    /// One of the two products, with the set of weights whose turn it is.
    fn product(&self, layer: &Layer<'_, D>, run: usize, pair: bool) -> Result<(), DeviceError> {
        self.launch(&self.launch_of(layer, run, pair))
    }

    fn launch_of(&self, layer: &Layer<'_, D>, run: usize, pair: bool) -> Launch<Product> {
        let Experts { count, hidden, inner, .. } = layer.model;
        let [n, k] = if pair { [inner, hidden] } else { [hidden, inner] };
        let list = |of: usize| {
            let first = run % layer.sets * 6 * count + of * 3 * count + if pair { 0 } else { 2 * count };
            layer.lists.address() + (8 * first) as Address
        };
        let Stored { format, group, scale_rows, .. } = *layer.weights.stored;
        let product = Product {
            x: if pair { layer.inputs.address() } else { layer.inner.address() },
            order: if pair { layer.order.address() } else { 0 },
            offsets: layer.offsets.address(),
            weights: list(0),
            scales: if format == Format::Bf16 { 0 } else { list(1) },
            biases: 0,
            out: if pair { layer.inner.address() } else { layer.out.address() },
            rows: layer.rows.order.len() as u32,
            experts: count as u32,
            n: n as u32,
            k: k as u32,
            out_width: n as u32,
            row_step: 1,
            group: group.min(k) as u32,
            scale_rows: scale_rows as u32,
            clamped: 0,
            alpha: 0.0,
            limit: 0.0,
        };
        let tiles = Table::default().choose(Kind { format, pair, n, k }, layer.rows.order.len(), count);
        product.launch_on(&*self.device, format, pair, tiles)
    }

    /// Compares both products at some places with f64.
    fn check(&self, random: &mut Random, layer: &Layer<'_, D>) -> Result<Option<f64>, Failure> {
        let Experts { count, hidden, inner, name, .. } = layer.model;
        let choices = layer.rows.order.len();
        let what = format!("{name}, {}, {} tokens", layer.weights.stored.name, layer.tokens);
        let (mut got, mut exact) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for i in 0..self.sizes.places {
            // The last row and column among them.
            let at = |most: usize, random: &mut Random| if i == 0 { most - 1 } else { random.below(most) };
            let (row, column, output) = (at(choices, random), at(inner, random), at(hidden, random));
            let expert = layer.rows.expert_of(row);
            let x = &layer.x[layer.rows.order[row] as usize * hidden..][..hidden];
            let between: Vec<bf16> = read(&layer.inner, row * inner * 2, inner, bf16::from_le_bytes)?;
            let dot = |x: &[bf16], matrix: usize, row: usize| -> f64 {
                let products = x.iter().enumerate();
                products
                    .map(|(k, x)| x.to_f64() * layer.weights.value(matrix, [row, k], x_len(layer, matrix)))
                    .sum()
            };
            let (gate, up) = (dot(x, expert, column), dot(x, count + expert, column));
            got[0].push(between[column].to_f64());
            exact[0].push(gate / (1.0 + (-gate).exp()) * up);
            let sum = read(&layer.out, (row * hidden + output) * 4, 1, f32::from_le_bytes)?[0];
            got[1].push(sum.into());
            exact[1].push(dot(&between, 2 * count + expert, output));
        }
        // Between the two a number is rounded to bf16.
        let first = within(&format!("gate and up of {what}"), &got[0], &exact[0], 4e-3)?;
        within(&format!("down of {what}"), &got[1], &exact[1], 1e-4)?;
        poison(&*self.device, &layer.out)?;
        Ok(first)
    }
}

/// Columns of a matrix by its number: downs come last.
fn x_len<D: Timed>(layer: &Layer<'_, D>, matrix: usize) -> usize {
    if matrix < 2 * layer.model.count { layer.model.hidden } else { layer.model.inner }
}

impl<D: Timed> Layer<'_, D> {
    /// Bytes and operations of one of the products: every weight of an expert that has rows once, every row once in and out.
    fn counted(&self, pair: bool) -> [usize; 2] {
        let Experts { hidden, inner, .. } = self.model;
        let (choices, matrices) = (self.rows.order.len(), if pair { 2 } else { 1 });
        let rows = if pair {
            self.tokens * hidden * 2 + choices * inner * 2
        } else {
            choices * inner * 2 + choices * hidden * 4
        };
        let weights = self.rows.used * matrices * (self.weights.bytes + self.weights.scale_bytes);
        [weights + rows, 2 * choices * matrices * hidden * inner]
    }
}
