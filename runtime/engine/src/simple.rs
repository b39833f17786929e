//! The slow simple loop: one request, the whole sequence computed again for every token, no cache, no batch, no
//! threads, plain scalar arithmetic on weights widened to f32. It is the specification of the engine: what
//! [`Engine`](crate::Engine) answers must equal what [`Simple::run`] answers.

use crate::load_error::LoadError;
use crate::model::Logits;
use crate::model::config::Config;
use crate::penalties::Seen;
use crate::request::{Finish, Request, TokenLogprobs};
use crate::sampler::{NoToken, Sampler};
use crate::weights::quantize::to_f32;
use crate::weights::shard::Checkpoint;
use std::path::Path;

/// A Mixtral in f32.
pub struct Simple {
    config: Config,
    embedding: Vec<f32>,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Vec<f32>,
}

struct Layer {
    attention_norm: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    o: Vec<f32>,
    moe_norm: Vec<f32>,
    gate: Vec<f32>,
    /// w1, w2, w3 of each expert.
    experts: Vec<[Vec<f32>; 3]>,
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
    /// Loads a model folder whose experts are stored one by one.
    pub fn load(dir: &Path) -> Result<Simple, LoadError> {
        let config = Config::read(dir)?;
        let checkpoint = Checkpoint::open(dir)?;
        let get = |name: &str, shape: &[usize]| Ok(to_f32(&checkpoint.tensor(name, shape)?));
        let Config { vocabulary, hidden, intermediate, heads, kv_heads, head_dim, experts, .. } = config;
        let layer = |l: usize| -> Result<Layer, LoadError> {
            let at = |name: &str, shape: &[usize]| get(&format!("model.layers.{l}.{name}.weight"), shape);
            let expert = |e: usize| -> Result<[Vec<f32>; 3], LoadError> {
                let at = |w, shape: &[usize]| at(&format!("block_sparse_moe.experts.{e}.{w}"), shape);
                let (up, down) = ([intermediate, hidden], [hidden, intermediate]);
                Ok([at("w1", &up)?, at("w2", &down)?, at("w3", &up)?])
            };
            Ok(Layer {
                attention_norm: at("input_layernorm", &[hidden])?,
                q: at("self_attn.q_proj", &[heads * head_dim, hidden])?,
                k: at("self_attn.k_proj", &[kv_heads * head_dim, hidden])?,
                v: at("self_attn.v_proj", &[kv_heads * head_dim, hidden])?,
                o: at("self_attn.o_proj", &[hidden, heads * head_dim])?,
                moe_norm: at("post_attention_layernorm", &[hidden])?,
                gate: at("block_sparse_moe.gate", &[experts, hidden])?,
                experts: (0..experts).map(expert).collect::<Result<_, _>>()?,
            })
        };
        let embedding = get("model.embed_tokens.weight", &[vocabulary, hidden])?;
        let head = match config.tied_embeddings {
            true => embedding.clone(),
            false => get("lm_head.weight", &[vocabulary, hidden])?,
        };
        let norm = get("model.norm.weight", &[hidden])?;
        let layers = (0..config.layers).map(layer).collect::<Result<_, _>>()?;
        Ok(Simple { config, embedding, layers, norm, head })
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
            if let Some(&other) = other.get(answer.tokens.len()).filter(|other| **other != token)
                && sample(&rows.nudged(last, token, other, tolerance))? == other
            {
                token = other;
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
        let Config { hidden, vocabulary, rms_norm_eps: eps, .. } = self.config;
        let embed = |token: &u32| self.embedding[*token as usize * hidden..][..hidden].to_vec();
        let mut x: Vec<Vec<f32>> = tokens.iter().map(embed).collect();
        for layer in &self.layers {
            let h: Vec<Vec<f32>> = x.iter().map(|x| rms_norm(x, &layer.attention_norm, eps)).collect();
            for (x, y) in x.iter_mut().zip(self.attention(layer, &h)) {
                add(x, &y, 1.0);
            }
            for x in &mut x {
                let h = rms_norm(x, &layer.moe_norm, eps);
                add(x, &self.moe(layer, &h), 1.0);
            }
        }
        let logits = |x: &Vec<f32>| matvec(&self.head, &rms_norm(x, &self.norm, eps), vocabulary);
        Rows(x.iter().map(logits).collect())
    }

    fn attention(&self, layer: &Layer, x: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let Config { hidden, heads, kv_heads, head_dim, .. } = self.config;
        let project = |w: &[f32], heads: usize, rotary: bool| -> Vec<Vec<f32>> {
            let row = |(position, x): (usize, &Vec<f32>)| {
                let mut row = matvec(w, x, heads * head_dim);
                if rotary {
                    row.chunks_exact_mut(head_dim).for_each(|head| self.rotate(head, position));
                }
                row
            };
            x.iter().enumerate().map(row).collect()
        };
        let (q, k, v) = (
            project(&layer.q, heads, true),
            project(&layer.k, kv_heads, true),
            project(&layer.v, kv_heads, false),
        );
        let scale = 1.0 / (head_dim as f32).sqrt();
        let attend = |t: usize| {
            let mut out = vec![0.0; heads * head_dim];
            for head in 0..heads {
                let (own, kv) = (head * head_dim, head / (heads / kv_heads) * head_dim);
                let query = &q[t][own..][..head_dim];
                let mut scores: Vec<f32> =
                    k[..=t].iter().map(|k| dot(query, &k[kv..][..head_dim]) * scale).collect();
                softmax(&mut scores);
                for (score, v) in scores.iter().zip(&v) {
                    add(&mut out[own..][..head_dim], &v[kv..][..head_dim], *score);
                }
            }
            matvec(&layer.o, &out, hidden)
        };
        (0..x.len()).map(attend).collect()
    }

    /// Turns the pairs (i, i + head_dim / 2) of one head.
    fn rotate(&self, head: &mut [f32], position: usize) {
        let half = head.len() / 2;
        for i in 0..half {
            let frequency = self.config.rope_theta.powf(-(i as f64) / half as f64) as f32;
            let (sin, cos) = (position as f32 * frequency).sin_cos();
            let (a, b) = (head[i], head[i + half]);
            head[i] = a * cos - b * sin;
            head[i + half] = b * cos + a * sin;
        }
    }

    fn moe(&self, layer: &Layer, x: &[f32]) -> Vec<f32> {
        let Config { hidden, intermediate, experts, experts_per_token, .. } = self.config;
        let mut scores = matvec(&layer.gate, x, experts);
        softmax(&mut scores);
        let mut best: Vec<usize> = (0..experts).collect();
        best.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        best.truncate(experts_per_token);
        let total: f32 = best.iter().map(|&e| scores[e]).sum();
        let mut out = vec![0.0; hidden];
        for e in best {
            let [w1, w2, w3] = &layer.experts[e];
            let silu = |x: f32| x / (1.0 + (-x).exp());
            let (gate, up) = (matvec(w1, x, intermediate), matvec(w3, x, intermediate));
            let inner: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| silu(*g) * u).collect();
            add(&mut out, &matvec(w2, &inner, hidden), scores[e] / total);
        }
        out
    }
}

/// Logits, one row a position.
pub struct Rows(pub Vec<Vec<f32>>);

impl Rows {
    /// The same, but in one row a token lower and another higher, together by `tolerance`.
    fn nudged(&self, row: usize, lower: u32, higher: u32, tolerance: f32) -> Rows {
        let mut rows = self.0.clone();
        rows[row][lower as usize] -= tolerance / 2.0;
        rows[row][higher as usize] += tolerance / 2.0;
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

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `w · x` of `w`, `[outputs, x.len()]`.
fn matvec(w: &[f32], x: &[f32], outputs: usize) -> Vec<f32> {
    assert_eq!(w.len(), outputs * x.len());
    w.chunks_exact(x.len()).map(|row| dot(row, x)).collect()
}

fn add(out: &mut [f32], x: &[f32], factor: f32) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out += factor * x);
}

fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let factor = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * factor * w).collect()
}

fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    x.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f32 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
}
