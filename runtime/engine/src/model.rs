//! A model: embedding, a list of layers over a [`Backend`], output head. One file a family says what its layers do.

pub mod attention;
pub mod config;
pub mod mixtral;

use crate::backend::Backend;
use crate::batch::Batch;
use crate::load_error::LoadError;
use crate::model::config::{Config, Family};
use crate::moe::host::Host;
use crate::moe::share::Share;
use crate::weights::shard::Checkpoint;
use crate::weights::tally::Tally;
use crate::weights::{Loader, Role, Storage};
use coterie_api::launch::Quantization;
use std::ops::Range;
use std::sync::Arc;

/// What the engine sees of a model, whatever its family and device.
pub trait Model {
    /// Token ids below this exist.
    fn vocabulary(&self) -> usize;
    /// Computes every row of `batch` and brings every layer's state up to date.
    fn forward(&mut self, batch: &Batch);
    /// The logits of the last batch's `logit_rows[wanted]`. Their number times the vocabulary is memory: ask for a
    /// few rows at a time.
    fn logits(&mut self, wanted: Range<usize>) -> &dyn Logits;
}

/// Logits `[rows, vocabulary]`, on whatever device they are.
pub trait Logits {
    /// Columns of a row.
    fn vocabulary(&self) -> usize;
    /// The most probable token of a row and its logit; the lowest id on a tie.
    fn argmax(&self, row: usize) -> (u32, f32);
    /// A token's log probability in a row, and the `n` most probable tokens with theirs, best first.
    fn log_softmax_top(&self, row: usize, token: u32, n: usize) -> (f32, Vec<(u32, f32)>);
    /// Replaces `out` with a row.
    fn copy_row(&self, row: usize, out: &mut Vec<f32>);
}

/// One decoder layer with its state: for every block of the cache whatever the layer needs to go on behind it. Keys
/// and values, a compressed latent, a snapshot of a running sum: only the layer knows.
///
/// Blocks are shared. A layer writes a block's state when the batch holds the block's rows, never again after it is
/// full, and lets a sequence see the blocks that sequences before it in the same batch have written.
pub trait Layer<B: Backend> {
    /// Replaces the residual stream `x`, `[rows, hidden]`, and adds the batch's rows to the state.
    fn forward(&mut self, backend: &B, batch: &B::Batch<'_>, x: &mut B::Tensor);
}

/// What a model is loaded from.
pub struct Source {
    /// The weights.
    pub checkpoint: Checkpoint,
    /// config.json.
    pub config: Config,
    /// How the weights are to be held.
    pub quantization: Quantization,
}

/// Loads a model onto a backend of `threads` threads, with a cache of `blocks` blocks; of its experts, one rank's
/// share if there are several. Every call of `backend` makes one for a thread of its own.
pub fn load<B>(
    source: &Arc<Source>,
    backend: fn(usize) -> B,
    threads: usize,
    blocks: usize,
    share: Option<Share<'_>>,
    progress: &dyn Fn(f32),
) -> Result<Box<dyn Model>, LoadError>
where
    B: Backend + 'static,
    B::Rope: Clone,
{
    let Source { checkpoint, config, .. } = &**source;
    let device = backend(threads);
    let mut loader = Loader::new(checkpoint, &device, source.quantization, progress);
    if let Some(share) = &share {
        share.check(config.layers, config.experts)?;
        loader = loader.only(share.map, share.rank);
    }
    match config.family {
        Family::Mixtral => {
            let weights = DecoderWeights::load(&loader, config, mixtral::load_layer)?;
            let ranks = share.map(|share| {
                let layers = weights.layers.iter().map(|layer| layer.experts().clone()).collect();
                let source = source.clone();
                let load = move |backend: &B, layer, expert| {
                    let Source { checkpoint, config, quantization } = &*source;
                    let loader = Loader::new(checkpoint, backend, *quantization, &|_| {});
                    mixtral::load_expert(&loader, config, layer, expert)
                };
                let (hidden, activations) = (config.hidden, share.activations);
                share.open(Host::new(hidden, activations, layers, backend, Box::new(load)))
            });
            let ranks = ranks.transpose()?;
            Ok(Box::new(mixtral::build(device, config, weights, blocks, ranks)?))
        }
    }
}

/// Walks the tensors of the model that `config` describes, checks them, and sums up what holding them takes.
pub fn weigh(checkpoint: &Checkpoint, config: &Config) -> Result<Tally, LoadError> {
    let tally = Tally::default();
    let loader = Loader::new(checkpoint, &tally, Quantization::None, &|_| {});
    match config.family {
        Family::Mixtral => drop(DecoderWeights::load(&loader, config, mixtral::load_layer)?),
    }
    Ok(tally)
}

/// Bytes of per-layer state that one token leaves in the cache, all layers together.
pub fn state_bytes_per_token(config: &Config) -> usize {
    match config.family {
        Family::Mixtral => config.layers * mixtral::attention_shape(config).bytes_per_token(),
    }
}

/// A decoder's weights, its layers' kind left open.
pub struct DecoderWeights<S: Storage, L> {
    /// `[vocabulary, hidden]`
    pub embedding: S::Matrix,
    /// In order.
    pub layers: Vec<L>,
    /// `[hidden]`
    pub norm: S::Vector,
    /// `[vocabulary, hidden]`; none where the embedding is used again.
    pub head: Option<S::Matrix>,
}

impl<S: Storage, L> DecoderWeights<S, L> {
    /// Loads what every family calls alike, and each layer by `layer`. The embedding is kept as it is; a head of its
    /// own is quantized with the rest, one that is the embedding is not.
    pub fn load(
        loader: &Loader<'_, S>,
        config: &Config,
        layer: impl Fn(&Loader<'_, S>, &Config, usize) -> Result<L, LoadError>,
    ) -> Result<Self, LoadError> {
        let table = [config.vocabulary, config.hidden];
        Ok(DecoderWeights {
            embedding: loader.matrix("model.embed_tokens.weight", table, Role::Kept)?,
            layers: (0..config.layers).map(|l| layer(loader, config, l)).collect::<Result<_, _>>()?,
            norm: loader.vector("model.norm.weight", config.hidden)?,
            head: match config.tied_embeddings {
                true => None,
                false => Some(loader.matrix("lm_head.weight", table, Role::Dense)?),
            },
        })
    }
}

/// A whole model on one backend.
pub struct Decoder<B: Backend> {
    backend: B,
    embedding: B::Matrix,
    layers: Vec<Box<dyn Layer<B>>>,
    norm: B::Vector,
    head: Option<B::Matrix>,
    eps: f32,
    vocabulary: usize,
    /// Residual stream of the last batch's `logit_rows`.
    last: Option<B::Tensor>,
    logits: Option<B::Tensor>,
}

impl<B: Backend> Decoder<B> {
    /// Puts the parts together.
    pub fn new(
        backend: B,
        embedding: B::Matrix,
        layers: Vec<Box<dyn Layer<B>>>,
        norm: B::Vector,
        head: Option<B::Matrix>,
        eps: f32,
        vocabulary: usize,
    ) -> Self {
        Decoder { backend, embedding, layers, norm, head, eps, vocabulary, last: None, logits: None }
    }

    fn computed(&self) -> &B::Tensor {
        self.logits.as_ref().expect("logits are asked for before they are read")
    }
}

impl<B: Backend> Model for Decoder<B> {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn forward(&mut self, batch: &Batch) {
        let backend = &self.backend;
        let placed = backend.place(batch);
        let mut x = backend.embed(&self.embedding, &placed);
        for layer in &mut self.layers {
            layer.forward(backend, &placed, &mut x);
        }
        self.last = Some(backend.gather(&x, &batch.logit_rows));
    }

    fn logits(&mut self, wanted: Range<usize>) -> &dyn Logits {
        let backend = &self.backend;
        let last = self.last.as_ref().expect("a batch is computed before its logits");
        let rows: Vec<u32> = wanted.map(|row| row as u32).collect();
        let h = backend.rms_norm(&backend.gather(last, &rows), &self.norm, self.eps);
        let [logits] = backend.matmul(&h, [self.head.as_ref().unwrap_or(&self.embedding)]);
        self.logits = Some(logits);
        self
    }
}

impl<B: Backend> Logits for Decoder<B> {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn argmax(&self, row: usize) -> (u32, f32) {
        self.backend.argmax(self.computed(), row)
    }

    fn log_softmax_top(&self, row: usize, token: u32, n: usize) -> (f32, Vec<(u32, f32)>) {
        self.backend.log_softmax_top(self.computed(), row, token, n)
    }

    fn copy_row(&self, row: usize, out: &mut Vec<f32>) {
        self.backend.copy_row(self.computed(), row, out);
    }
}
