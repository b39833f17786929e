//! What is done to rows between products: norms, rotation, activations, gates, and drawing tokens.

use coterie_kernels::cpu::pool::Pool;
use coterie_kernels::cpu::rope::Table;
use coterie_kernels::cpu::{gate as host_gate, norm as host_norm, rope};
use coterie_kernels::cuda::device::DeviceError;
use coterie_kernels::cuda::elements::{Elements, Op};
use coterie_kernels::cuda::gate::Gate;
use coterie_kernels::cuda::norm::Norm;
use coterie_kernels::cuda::rotary::Rotary;
use coterie_kernels::cuda::sample::{Best, Rule as Draw, Sample};
use coterie_kernels::cuda::timed::{Time, Timed};
use coterie_kernels::gate::{Groups, Rule, Scores, Worth};
use half::bf16;

use super::figure::Figure;
use super::random::Random;
use super::{Failure, Suite, Wrong, read, within};

const EPS: f32 = 1e-6;
const HEADS: usize = 32;
const HEAD_DIM: usize = 128;
const EXPERTS: usize = 256;

/// As DeepSeek-V3 chooses.
const RULE: Rule = Rule {
    per_token: 8,
    scores: Scores::Sigmoid,
    groups: Some(Groups { count: 8, kept: 4, worth: Worth::TwoBest }),
    renormalise: true,
    factor: 2.5,
};

/// Tokens that a draw is from.
const TOP: u32 = 50;

fn f64s(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

impl<D: Timed> Suite<'_, D> {
    pub fn rows(&mut self) -> Result<(), Failure> {
        let rows: Vec<usize> = self.sizes.decode.iter().copied().chain([self.sizes.prefill]).collect();
        let mut wrong = Wrong::default();
        for count in rows {
            let random = &mut Random::new(count as u64);
            for part in [Suite::norm, Suite::rotation, Suite::activation, Suite::gate] {
                wrong.note(part(self, random, count))?;
            }
        }
        for count in self.sizes.decode.clone() {
            wrong.note(self.draws(&mut Random::new(count as u64), count))?;
        }
        wrong.failure()
    }

    fn row_figure(
        &mut self,
        op: &'static str,
        [rows, width]: [usize; 2],
        time: Time,
        bytes: usize,
        error: Option<f64>,
    ) {
        (self.tell)(Figure {
            op,
            of: format!("{width} wide"),
            format: "f32".to_owned(),
            rows,
            time,
            bytes,
            flop: 0,
            error,
            note: String::new(),
        });
    }

    fn norm(&mut self, random: &mut Random, rows: usize) -> Result<(), Failure> {
        let width = self.sizes.hidden;
        let (x, weight) = (random.values(rows * width), random.values(width));
        let (x_memory, weight_memory) = (self.memory(&x)?, self.memory(&weight)?);
        let out = self.unwritten(rows * width * 2)?;
        let norm = Norm {
            x: x_memory.address(),
            weight: weight_memory.address(),
            residual: 0,
            out: out.address(),
            width: width as u32,
            eps: EPS,
        };
        let time = self.watch.time(1, |_| self.launch(&norm.launch(rows as u32, true)))?;
        let (mut got, mut exact) = (Vec::new(), Vec::new());
        for row in [0, rows / 2, rows - 1] {
            let mut expected = vec![0.0; width];
            host_norm::reference(&mut expected, &x[row * width..][..width], &weight, EPS);
            exact.extend(f64s(&expected));
            let written = read(&out, row * width * 2, width, bf16::from_le_bytes)?;
            got.extend(written.into_iter().map(bf16::to_f64));
        }
        let error = within("norm", &got, &exact, 4e-3)?;
        self.row_figure("norm", [rows, width], time, rows * width * 6 + width * 4, error);
        Ok(())
    }

    fn rotation(&mut self, random: &mut Random, rows: usize) -> Result<(), Failure> {
        let frequencies: Vec<f32> = (0..HEAD_DIM / 2).map(|i| 1e4f32.powf(-(i as f32) / 64.0)).collect();
        let table = Table::new(&frequencies, 1.0, rows);
        let [cosines, sines] = table.values().map(|values| self.memory(values));
        let (cosines, sines) = (cosines?, sines?);
        let positions: Vec<u32> = (0..rows as u32).collect();
        let (x, places) = (random.values(rows * HEADS * HEAD_DIM), self.memory(&positions)?);
        let turned = self.memory(&x)?;
        let rotary = Rotary {
            x: turned.address(),
            cosines: cosines.address(),
            sines: sines.address(),
            positions: places.address(),
            rows: rows as u32,
            heads: HEADS as u32,
            head_dim: HEAD_DIM as u32,
            half: (HEAD_DIM / 2) as u32,
        };
        // Once, compared, and then on and on.
        self.launch(&rotary.launch(false))?;
        let width = HEADS * HEAD_DIM;
        let row = rows - 1;
        let mut exact = x[row * width..].to_vec();
        rope::half_split(&Pool::new(1), &mut exact, &table, &positions[row..], HEADS, HEAD_DIM);
        let got = read(&turned, row * width * 4, width, f32::from_le_bytes)?;
        let error = within("rotary", &f64s(&got), &f64s(&exact), 1e-5)?;
        let time = self.watch.time(1, |_| self.launch(&rotary.launch(false)))?;
        self.row_figure("rotary", [rows, width], time, rows * (width * 8 + HEAD_DIM * 4), error);
        Ok(())
    }

    fn activation(&mut self, random: &mut Random, rows: usize) -> Result<(), Failure> {
        let width = self.sizes.hidden;
        let [gate, up] = [0, 1].map(|_| random.values(rows * width));
        let (gates, ups, out) = (self.memory(&gate)?, self.memory(&up)?, self.unwritten(rows * width * 2)?);
        let elements = Elements {
            a: gates.address(),
            b: ups.address(),
            out: out.address(),
            count: (rows * width) as u64,
            ..Elements::default()
        };
        let time = self.watch.time(1, |_| self.launch(&elements.launch(Op::SiluMulBf16)))?;
        let first = (rows - 1) * width;
        let exact = gate[first..].iter().zip(&up[first..]).map(|(gate, up)| {
            let gate = f64::from(*gate);
            gate / (1.0 + (-gate).exp()) * f64::from(*up)
        });
        let got = read(&out, first * 2, width, bf16::from_le_bytes)?;
        let got: Vec<f64> = got.into_iter().map(bf16::to_f64).collect();
        let error = within("activation", &got, &exact.collect::<Vec<_>>(), 4e-3)?;
        self.row_figure("activation", [rows, width], time, rows * width * 10, error);
        Ok(())
    }

    fn gate(&mut self, random: &mut Random, rows: usize) -> Result<(), Failure> {
        let (logits, bias) = (random.values(rows * EXPERTS), random.values(EXPERTS));
        let (logits_memory, bias_memory) = (self.memory(&logits)?, self.memory(&bias)?);
        let choices = rows * RULE.per_token;
        let (ids, weights) = (self.unwritten(choices * 4)?, self.unwritten(choices * 4)?);
        let memory = [logits_memory.address(), bias_memory.address(), ids.address(), weights.address()];
        let Some(launch) = Gate::launch(&RULE, memory, rows, EXPERTS) else {
            return Err(Failure::Wrong("the gate takes too few experts for DeepSeek-V3".to_owned()));
        };
        let time = self.watch.time(1, |_| self.launch(&launch))?;
        let (mut expected, mut shares) = (vec![0; choices], vec![0.0; choices]);
        let pool = Pool::new(1);
        host_gate::choose(&pool, &logits, Some(&bias), EXPERTS, &RULE, &mut expected, &mut shares);
        let got = read(&ids, 0, choices, u32::from_le_bytes)?;
        // Two that all but tie may change places.
        let other = got.iter().zip(&expected).filter(|(a, b)| a != b).count();
        if other * 1000 > choices {
            let what = format!("the gate: {other} of {choices} choices are other experts than the host's");
            return Err(Failure::Wrong(what));
        }
        let written = read(&weights, 0, choices, f32::from_le_bytes)?;
        let error = within("gate", &f64s(&written), &f64s(&shares), 1e-3)?;
        self.row_figure("gate", [rows, EXPERTS], time, (rows * EXPERTS + 2 * choices) * 4, error);
        Ok(())
    }

    fn draws(&mut self, random: &mut Random, rows: usize) -> Result<(), Failure> {
        let width = self.sizes.vocabulary;
        let logits = random.values(rows * width);
        let (memory, tokens) = (self.memory(&logits)?, self.unwritten(rows * 4)?);
        let values = self.unwritten(rows * 4)?;
        let vocabulary = width as u32;
        let best =
            Best { logits: memory.address(), tokens: tokens.address(), values: values.address(), vocabulary };
        let time = self.watch.time(1, |_| self.launch(&best.launch(rows as u32)))?;
        let of_row = |row: usize| &logits[row * width..][..width];
        let got = self.tokens(&tokens, rows)?;
        for (row, token) in got.iter().enumerate() {
            let largest = of_row(row).iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if of_row(row).get(*token as usize) != Some(&largest) {
                return Err(Failure::Wrong(format!("best of row {row}: {token} is not the largest")));
            }
        }
        self.row_figure("best token", [rows, width], time, rows * width * 4, None);

        let rules: Vec<Draw> = (0..rows as u64)
            .map(|seed| Draw { temperature: 0.8, top_p: 0.95, min_p: 0.0, top_k: TOP, seed, index: 3 })
            .collect();
        let rules = self.memory(&rules)?;
        let sample =
            Sample { logits: memory.address(), rules: rules.address(), tokens: tokens.address(), vocabulary };
        let time = self.watch.time(1, |_| self.launch(&sample.launch(rows as u32)))?;
        for (row, token) in self.tokens(&tokens, rows)?.iter().enumerate() {
            let drawn = of_row(row).get(*token as usize).copied();
            let larger = drawn.map(|drawn| of_row(row).iter().filter(|x| **x > drawn).count());
            if larger.is_none_or(|larger| larger >= TOP as usize) {
                return Err(Failure::Wrong(format!("row {row}: {token} is not among the {TOP} best")));
            }
        }
        self.row_figure("drawn token", [rows, width], time, rows * width * 4, None);
        Ok(())
    }

    fn tokens(
        &self,
        tokens: &coterie_kernels::cuda::device::Memory<D>,
        rows: usize,
    ) -> Result<Vec<u32>, DeviceError> {
        read(tokens, 0, rows, u32::from_le_bytes)
    }
}
