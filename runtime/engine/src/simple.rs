//! The slow simple loop: one request, the whole sequence computed again for every token, no cache, no batch, no
//! threads, plain scalar arithmetic on weights widened to f32. It is the specification of the engine: what
//! [`Engine`](crate::Engine) answers must equal what [`Simple::run`] answers.

mod attention;
mod experts;
mod latent;
mod lightning;
mod math;
mod widened;

use crate::load_error::LoadError;
use crate::model::Logits;
use crate::model::config::Config;
use crate::model::config::plan::{Blend, Mixer};
use crate::model::decoder::DecoderWeights;
use crate::model::layer::{MixerWeights, MlpWeights};
use crate::penalties::Seen;
use crate::request::{Finish, Request, TokenLogprobs};
use crate::sampler::{NoToken, Sampler};
use crate::weights::Loader;
use crate::weights::shard::Checkpoint;
use attention::attention;
use coterie_api::launch::Quantization;
use experts::{feed_forward, moe};
use latent::latent_attention;
use lightning::lightning;
use math::{add, matvec, rms_norm};
use std::path::Path;
use widened::Widened;

/// A model in f32.
pub struct Simple {
    config: Config,
    weights: DecoderWeights<Widened>,
}

/// What a request came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Tokens generated now, a stop token included.
    pub tokens: Vec<u32>,
    /// One entry a generated token, if asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// One entry a prompt token, if asked for.
    pub prompt_logprobs: Vec<Option<TokenLogprobs>>,
    /// Why it ended.
    pub finish: Option<Finish>,
}

impl Simple {
    /// Loads a model folder.
    pub fn load(dir: &Path) -> Result<Simple, LoadError> {
        let (config, checkpoint) = (Config::read(dir)?, Checkpoint::open(dir)?);
        let loader = Loader::new(&checkpoint, &Widened, Quantization::None, &|_| {});
        let weights = DecoderWeights::load(&loader, &config)?;
        Ok(Simple { config, weights })
    }

    /// Answers one request.
    pub fn run(&self, request: &Request) -> Result<Answer, NoToken> {
        self.run_beside(request, &[], 0.0)
    }

    /// Answers one request like somebody who sums in another order and answered `other`: where logits that differ by
    /// no more than `tolerance` would have led to their token, it is taken, and the answer goes on from there. One that
    /// comes with tokens goes on behind them.
    pub fn run_beside(&self, request: &Request, other: &[u32], tolerance: f32) -> Result<Answer, NoToken> {
        let (mut tokens, mut answer) =
            ([&request.prompt[..], &request.generated].concat(), Answer::default());
        let (mut sampler, mut seen) = (Sampler::default(), Seen::of(request));
        let mut constraint = request.constraint.clone();
        let before = request.generated.len();
        let mut finish = request.generated.last().and_then(|last| request.finish(*last, before));
        let mut rows = self.logits(&tokens);
        if let Some(top) = request.prompt_logprobs.filter(|_| before == 0) {
            answer.prompt_logprobs.push(None);
            for (position, &token) in tokens.iter().enumerate().skip(1) {
                answer.prompt_logprobs.push(Some(rows.score(position - 1, token, top)));
            }
        }
        while finish.is_none() && before + answer.tokens.len() < request.max_tokens {
            let last = tokens.len() - 1;
            let (sampling, generated) = (&request.sampling, before + answer.tokens.len());
            let mut sample = |rows: &Rows| {
                sampler.sample(rows, last, sampling, &seen, constraint.as_deref_mut(), generated)
            };
            let mut token = sample(&rows)?;
            if let Some(&other) = other.get(answer.tokens.len()).filter(|other| **other != token) {
                let pair = [(token, -tolerance / 2.0), (other, tolerance / 2.0)];
                // A third token that comes or goes at a threshold (min_p, top_p, top_k) changes what is drawn, too.
                let thirds = (0..self.config.vocabulary as u32)
                    .flat_map(|third| [(third, -tolerance / 2.0), (third, tolerance / 2.0)]);
                for third in std::iter::once(None).chain(thirds.map(Some)) {
                    if sample(&rows.nudged(last, pair.into_iter().chain(third)))? == other {
                        token = other;
                        break;
                    }
                }
            }
            seen.push(token);
            answer.logprobs.extend(request.top_logprobs.map(|top| rows.score(last, token, top)));
            tokens.push(token);
            answer.tokens.push(token);
            finish = request.finish(token, generated + 1);
            if finish.is_none() {
                if let Some(constraint) = &mut constraint {
                    constraint.accept(token).map_err(NoToken::Constraint)?;
                }
                rows = self.logits(&tokens);
            }
        }
        answer.finish = finish.or(Some(Finish::Length));
        Ok(answer)
    }

    /// Logits at every position of `tokens`.
    pub fn logits(&self, tokens: &[u32]) -> Rows {
        let Config { hidden, rms_norm_eps: eps, .. } = self.config;
        let DecoderWeights { embedding, layers, norm, head, tokens: known } = &self.weights;
        let after = |y: Vec<f32>, norm: &Option<Vec<f32>>| match norm {
            Some(norm) => rms_norm(&y, norm, eps),
            None => y,
        };
        let embed = |token: &u32| embedding[*token as usize * hidden..][..hidden].to_vec();
        let mut x: Vec<Vec<f32>> = tokens.iter().map(embed).collect();
        for (plan, weights) in self.config.layers.iter().zip(layers) {
            let normed = |x: &[Vec<f32>], weight| x.iter().map(|x| rms_norm(x, weight, eps)).collect();
            let h: Vec<Vec<f32>> = normed(&x, &weights.mixer_norm);
            let mixed = match (&plan.mixer, &weights.mixer) {
                (Mixer::Attention(plan), MixerWeights::Attention(weights)) => {
                    attention(plan, weights, eps, &h)
                }
                (Mixer::Latent(plan), MixerWeights::Latent(weights)) => latent_attention(plan, weights, &h),
                (Mixer::Lightning(plan), MixerWeights::Lightning(weights)) => {
                    lightning(plan, weights, &h, eps)
                }
                _ => unreachable!("weights follow the plan"),
            };
            for ((x, h), y) in x.iter_mut().zip(&h).zip(mixed) {
                go_on(x, h, &after(y, &weights.mixed_norm), plan.residual.mixer());
            }

            let h: Vec<Vec<f32>> = normed(&x, &weights.mlp_norm);
            for (x, h) in x.iter_mut().zip(&h) {
                let answer = match &weights.mlp {
                    MlpWeights::Moe(weights) => moe(weights, h),
                    MlpWeights::Dense(weights) => feed_forward(weights, h),
                };
                go_on(x, h, &after(answer, &weights.answer_norm), plan.residual.mlp());
            }
        }
        let head = head.as_ref().unwrap_or(embedding);
        let logits = |x: &Vec<f32>| {
            let mut logits = matvec(head, &rms_norm(x, norm, eps));
            logits[*known..].fill(f32::NEG_INFINITY);
            logits
        };
        Rows(x.iter().map(logits).collect())
    }
}

/// The residual stream behind a part that made `y` of `h`, the normalised `x`.
fn go_on(x: &mut [f32], h: &[f32], y: &[f32], blend: Option<Blend>) {
    if let Some(Blend { alpha, .. }) = blend {
        x.iter_mut().zip(h).for_each(|(x, h)| *x = alpha * h);
    }
    add(x, y, blend.map_or(1.0, |blend| blend.beta));
}

/// Logits, one row a position.
pub struct Rows(pub Vec<Vec<f32>>);

impl Rows {
    /// The same, but in one row some tokens' logits higher by so much.
    fn nudged(&self, row: usize, by: impl Iterator<Item = (u32, f32)>) -> Rows {
        let mut rows = self.0.clone();
        by.for_each(|(token, by)| rows[row][token as usize] += by);
        Rows(rows)
    }

    fn score(&self, row: usize, token: u32, top: usize) -> TokenLogprobs {
        let (logprob, top) = self.log_softmax_top(row, token, top);
        TokenLogprobs { token, logprob, top }
    }
}

impl Logits for Rows {
    fn vocabulary(&self) -> usize {
        self.0[0].len()
    }

    fn argmax(&self, row: usize) -> (u32, f32) {
        let row = &self.0[row];
        let best = (0..row.len()).reduce(|a, b| if row[b] > row[a] { b } else { a }).unwrap_or_default();
        (best as u32, row[best])
    }

    fn log_softmax_top(&self, row: usize, token: u32, n: usize) -> (f32, Vec<(u32, f32)>) {
        let row = &self.0[row];
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let log_sum = row.iter().map(|x| (x - max).exp()).sum::<f32>().ln();
        let mut all: Vec<(u32, f32)> = (0..).zip(row.iter().map(|x| x - max - log_sum)).collect();
        let logprob = all[token as usize].1;
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.truncate(n);
        (logprob, all)
    }

    fn copy_row(&self, row: usize, out: &mut Vec<f32>) {
        out.clone_from(&self.0[row]);
    }
}
