//! A decoder: embedding, layers, final norm, output head.

use crate::backend::{Backend, Step};
use crate::batch::{Batch, Draw};
use crate::engine::LOGIT_ROWS;
use crate::load_error::LoadError;
use crate::model::config::Config;
use crate::model::config::rope::RopePlan;
use crate::model::draft::Draft;
use crate::model::layer::{DecoderLayer, LayerWeights};
use crate::model::{Logits, Model, Room};
use crate::moe::expert::LayerExperts;
use crate::moe::ranks::{LayerRanks, Ranks};
use crate::weights::{Loader, Role, Storage};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// A decoder's weights.
pub struct DecoderWeights<S: Storage> {
    /// `[vocabulary, hidden]`
    pub embedding: S::Matrix,
    /// In order.
    pub layers: Vec<LayerWeights<S>>,
    /// `[hidden]`
    pub norm: S::Vector,
    /// `[vocabulary, hidden]`; none where the embedding is used again.
    pub head: Option<S::Matrix>,
    /// Rows of the head that stand for tokens. Those behind them are zero: the vocabulary was rounded up.
    pub tokens: usize,
}

impl<S: Storage> DecoderWeights<S> {
    /// Loads what `config` describes. The embedding is kept as it is; a head of its own is quantized with the rest,
    /// one that is the embedding is not.
    pub fn load(loader: &Loader<'_, S>, config: &Config) -> Result<Self, LoadError> {
        let table = [config.vocabulary, config.hidden];
        let embedding = loader.matrix(EMBEDDING, table, Role::Kept)?;
        let mut layers: Vec<LayerWeights<S>> = Vec::new();
        let mut with_experts = 0;
        for (l, plan) in config.layers.iter().enumerate() {
            let layer = LayerWeights::load(loader, config, plan, l, with_experts)?;
            with_experts += usize::from(layer.experts().is_some());
            layers.push(layer);
        }
        Ok(DecoderWeights {
            embedding,
            layers,
            norm: loader.vector("model.norm.weight", config.hidden)?,
            head: match config.tied_embeddings {
                true => None,
                false => Some(loader.matrix(HEAD, table, Role::Dense)?),
            },
            tokens: {
                let head = if config.tied_embeddings { EMBEDDING } else { HEAD };
                rows_before_zeros(loader.tensor(head, &table)?.bytes(), config.vocabulary)
            },
        })
    }

    /// Of every layer with experts, what is held of them.
    pub fn experts(&self) -> Vec<Arc<LayerExperts<S>>> {
        self.layers.iter().filter_map(|layer| layer.experts().cloned()).collect()
    }
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// How many of a matrix's rows there are up to the last that is not zero; all, if all are, or nothing is there to read.
fn rows_before_zeros(matrix: &[u8], rows: usize) -> usize {
    if matrix.is_empty() {
        return rows;
    }
    let mut from_last = matrix.rchunks_exact(matrix.len() / rows);
    let zeros = from_last.position(|row| row.iter().any(|byte| *byte != 0));
    rows - zeros.unwrap_or(0)
}

/// The rotary embeddings of a model: layers of equal angles share a table.
pub struct Ropes<B: Backend>(Vec<(RopePlan, usize, B::Rope)>);

impl<B: Backend> Default for Ropes<B> {
    fn default() -> Self {
        Ropes(Vec::new())
    }
}

impl<B: Backend> Ropes<B>
where
    B::Rope: Clone,
{
    /// That of heads of `head_dim` values.
    pub fn get(&mut self, backend: &B, plan: &RopePlan, head_dim: usize) -> B::Rope {
        if let Some((.., rope)) = self.0.iter().find(|(of, width, _)| (of, *width) == (plan, head_dim)) {
            return rope.clone();
        }
        let rope = backend.rope(plan, head_dim);
        self.0.push((plan.clone(), head_dim, rope.clone()));
        rope
    }
}

/// A whole model on one backend.
pub struct Decoder<B: Backend> {
    backend: B,
    embedding: B::Matrix,
    layers: Vec<DecoderLayer<B>>,
    norm: B::Vector,
    head: Option<B::Matrix>,
    eps: f32,
    vocabulary: usize,
    /// Columns of logits behind these stand for no token.
    tokens: usize,
    draft: Option<Draft<B>>,
    /// Are all experts here? Then a step asks nobody else.
    alone: bool,
    /// Residual stream of the last batch, where a draft module will see it.
    all: Option<B::Tensor>,
    /// Residual stream of the last batch's `logit_rows`; none where it was [repeated](Backend::repeat), and all of them wanted.
    last: Option<B::Tensor>,
    /// How tokens may be drawn behind each of them.
    draws: Vec<Draw>,
    /// Logits of some of them, from this one on.
    first: usize,
    logits: Option<B::Tensor>,
}

impl<B: Backend + 'static> Decoder<B>
where
    B::Rope: Clone,
{
    /// Weights with `room` for sequences; `ranks` where the experts are spread over several.
    pub fn new(
        backend: B,
        config: &Config,
        weights: DecoderWeights<B>,
        room: Room,
        ranks: Option<Rc<Ranks>>,
    ) -> Result<Self, LoadError> {
        let (eps, vocabulary) = (config.rms_norm_eps, config.vocabulary);
        let DecoderWeights { embedding, layers: loaded, norm, head, tokens } = weights;
        let mut ropes = Ropes::default();
        let (mut layers, mut with_experts) = (Vec::with_capacity(loaded.len()), 0);
        let alone = ranks.is_none();
        for (plan, weights) in config.layers.iter().zip(loaded) {
            let ranks = match weights.experts() {
                Some(_) => ranks.clone().map(|ranks| LayerRanks { layer: with_experts, ranks }),
                None => None,
            };
            with_experts += u16::from(weights.experts().is_some());
            layers.push(DecoderLayer::new(&backend, &mut ropes, plan, weights, room, ranks, eps)?);
        }
        Ok(Decoder {
            backend,
            embedding,
            layers,
            norm,
            head,
            eps,
            vocabulary,
            tokens,
            draft: None,
            alone,
            all: None,
            last: None,
            draws: Vec::new(),
            first: 0,
            logits: None,
        })
    }

    /// The same with a draft module.
    pub fn with(self, draft: Option<Draft<B>>) -> Self {
        Decoder { draft, ..self }
    }
}

impl<B: Backend> Decoder<B> {
    /// Where it is computed.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The embeddings of a batch's tokens, `[rows, hidden]`.
    pub fn embed(&self, batch: &B::Batch<'_>) -> B::Tensor {
        self.backend.embed(&self.embedding, batch)
    }

    /// What the final norm gives at the last batch's `logit_rows[wanted]`, `[rows, hidden]`.
    pub fn normed(&self, wanted: Range<usize>) -> B::Tensor {
        // Where all rows are wanted, those of the whole batch are the same.
        let last = self.last.as_ref().or(self.all.as_ref()).expect("a batch is computed before its logits");
        let rows: Vec<u32> = wanted.map(|row| row as u32).collect();
        self.backend.rms_norm(&self.backend.gather(last, &rows), &self.norm, self.eps)
    }

    /// The logits of what a final norm gave, `[rows, vocabulary]`.
    pub fn head(&self, normed: &B::Tensor) -> B::Tensor {
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        logits(&self.backend, normed, head, self.tokens..self.vocabulary)
    }

    fn computed(&self) -> &B::Tensor {
        self.logits.as_ref().expect("logits are asked for before they are read")
    }
}

/// Rows times a head, whose columns `none` stand for no token.
fn logits<B: Backend>(backend: &B, normed: &B::Tensor, head: &B::Matrix, none: Range<usize>) -> B::Tensor {
    let [mut logits] = backend.matmul(normed, [head]);
    if !none.is_empty() {
        backend.forbid(&mut logits, none.start);
    }
    logits
}

impl<B: Backend + 'static> Decoder<B> {
    /// The whole of a step, if the device repeats such steps.
    fn repeat(&mut self, batch: &Batch) -> Option<Step<B::Tensor>> {
        let Decoder { backend, embedding, layers, norm, head, .. } = self;
        let (eps, none) = (self.eps, self.tokens..self.vocabulary);
        let backend = &*backend;
        backend.repeat(batch, |placed| {
            let mut all = backend.embed(embedding, placed);
            for layer in layers.iter_mut() {
                layer.forward(backend, placed, &mut all);
            }
            let normed = backend.rms_norm(&all, norm, eps);
            let logits = logits(backend, &normed, head.as_ref().unwrap_or(embedding), none.clone());
            Step { all, logits }
        })
    }
}

impl<B: Backend + 'static> Model for Decoder<B> {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn repeats_steps(&self) -> bool {
        self.backend.repeats()
    }

    fn forward(&mut self, batch: &Batch) {
        self.draws.clone_from(&batch.draws);
        // Experts of other ranks are asked by way of this process.
        if let Some(Step { all, logits }) = self.alone.then(|| self.repeat(batch)).flatten() {
            (self.all, self.last, self.logits) = (Some(all), None, Some(logits));
            return;
        }
        let backend = &self.backend;
        let placed = backend.place(batch);
        let mut x = self.embed(&placed);
        for layer in &mut self.layers {
            layer.forward(backend, &placed, &mut x);
        }
        self.last = Some(backend.gather(&x, &batch.logit_rows));
        self.all = self.draft.is_some().then_some(x);
    }

    fn logits(&mut self, wanted: Range<usize>) -> &dyn Logits {
        self.first = wanted.start;
        if self.last.is_some() {
            let mut logits = self.head(&self.normed(wanted.clone()));
            if let Some(draws) = self.draws.get(wanted) {
                self.backend.draw(&mut logits, draws);
            }
            (self.first, self.logits) = (0, Some(logits));
        }
        self
    }

    fn drafts(&self) -> bool {
        self.draft.is_some()
    }

    fn draft(&mut self, batch: &Batch, seen: &[u32], guesses: &mut Vec<u32>) {
        guesses.clear();
        let Some(all) = &self.all else { return };
        let Some(mut draft) = self.draft.take() else { return };
        let seen = self.backend.rms_norm(&self.backend.gather(all, seen), &self.norm, self.eps);
        let normed = draft.forward(self, &seen, batch);
        for rows in batch.logit_rows.chunks(LOGIT_ROWS) {
            let logits = self.head(&self.backend.gather(&normed, rows));
            guesses.extend((0..rows.len()).map(|row| self.backend.argmax(&logits, row).0));
        }
        self.draft = Some(draft);
    }
}

impl<B: Backend> Logits for Decoder<B> {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn argmax(&self, row: usize) -> (u32, f32) {
        self.backend.argmax(self.computed(), self.first + row)
    }

    fn drawn(&self, row: usize) -> Option<Option<u32>> {
        if self.draws.is_empty() { None } else { self.backend.drawn(self.computed(), self.first + row) }
    }

    fn log_softmax_top(&self, row: usize, token: u32, n: usize) -> (f32, Vec<(u32, f32)>) {
        self.backend.log_softmax_top(self.computed(), self.first + row, token, n)
    }

    fn copy_row(&self, row: usize, out: &mut Vec<f32>) {
        self.backend.copy_row(self.computed(), self.first + row, out);
    }
}
