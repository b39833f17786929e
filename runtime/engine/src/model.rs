//! A model over a [`Backend`]. [`family`] turns a config.json into a description ([`config`]), [`decoder`] and [`layer`]
//! are what the description comes to.

pub mod attention;
pub mod config;
pub mod decoder;
pub mod draft;
pub mod experts;
pub mod family;
pub mod latent;
pub mod layer;
pub mod lightning;

use crate::backend::Backend;
use crate::batch::Batch;
use crate::block_pool::BLOCK_SIZE;
use crate::load_error::LoadError;
use crate::model::config::Config;
use crate::model::config::plan::{LayerPlan, LightningPlan, Mixer, MoePlan};
use crate::model::decoder::{Decoder, DecoderWeights};
use crate::model::draft::{Draft, DraftWeights};
use crate::model::experts::load_expert;
use crate::moe::host::{Host, LoadExpert, MakeBackend};
use crate::moe::share::Share;
use crate::state::StateRoom;
use crate::weights::tally::Tally;
use crate::weights::{Loader, Tensors};
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
    /// Does its device repeat steps that it has recorded?
    fn repeats_steps(&self) -> bool {
        false
    }
    /// Does it have a draft module?
    fn drafts(&self) -> bool {
        false
    }
    /// Lets the draft module see what came of the last batch: row i of `batch` is the token that followed row `seen[i]`
    /// of that. Replaces `guesses` with the tokens that it guesses behind the `logit_rows` of `batch`.
    fn draft(&mut self, _batch: &Batch, _seen: &[u32], guesses: &mut Vec<u32>) {
        guesses.clear();
    }
}

/// Logits `[rows, vocabulary]`, on whatever device they are.
pub trait Logits {
    /// Columns of a row.
    fn vocabulary(&self) -> usize;
    /// The most probable token of a row and its logit; the lowest id on a tie.
    fn argmax(&self, row: usize) -> (u32, f32);
    /// The token that the device drew from a row as the batch's [`draws`](Batch::draws) say, if it did: `None` in it where the
    /// largest logit is no finite number.
    fn drawn(&self, _row: usize) -> Option<Option<u32>> {
        None
    }
    /// A token's log probability in a row, and the `n` most probable tokens with theirs, best first.
    fn log_softmax_top(&self, row: usize, token: u32, n: usize) -> (f32, Vec<(u32, f32)>);
    /// Replaces `out` with a row.
    fn copy_row(&self, row: usize, out: &mut Vec<f32>);
}

/// What a model is loaded from.
pub struct Source {
    /// The weights.
    pub tensors: Box<dyn Tensors + Send + Sync>,
    /// config.json.
    pub config: Config,
    /// How the weights are to be held.
    pub quantization: Quantization,
}

/// What the layers of a model have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Blocks of the cache.
    pub blocks: usize,
    /// Running states, where a layer has such.
    pub states: StateRoom,
    /// Rows of a step.
    pub rows: usize,
}

/// What a model takes of a device.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// Its shapes.
    pub config: &'a Config,
    /// How the weights are to be held.
    pub quantization: Quantization,
    /// Bytes of the weights that are to be held.
    pub weights: usize,
    /// What its layers are to have room for.
    pub room: Room,
    /// Is its draft module wanted, which has a layer like the last?
    pub draft: bool,
}

impl<'a> Need<'a> {
    fn new(
        source: &'a Source,
        room: Room,
        draft: bool,
        share: Option<&Share<'_>>,
    ) -> Result<Self, LoadError> {
        let Source { tensors, config, quantization } = source;
        let [all, experts] = weigh(&**tensors, config)?.held(*quantization);
        let module = draft.then(|| weigh_draft_module(&**tensors, config)).flatten();
        let of_module = module.map_or(0, |tally| tally.held(*quantization)[0]);
        // Of a replica's experts a rank holds some.
        let elsewhere = share.map_or(0, |share| {
            let of_all = config.expert_layers().count() * config.experts()[0];
            experts.saturating_sub(experts / of_all.max(1) * share.map.slots_of(share.rank))
        });
        let weights = all - elsewhere + of_module;
        Ok(Need { config, quantization: *quantization, weights, room, draft })
    }
}

/// Loads a model onto a backend of `threads` threads, with `room` for sequences, and its draft module if `draft`; of its
/// experts, one rank's share if there are several. With it comes how many bytes of the checkpoint were read. Every call
/// of `backend` makes one for a thread of its own.
pub fn load<B>(
    source: &Arc<Source>,
    backend: MakeBackend<B>,
    threads: usize,
    room: Room,
    draft: bool,
    share: Option<Share<'_>>,
    progress: &dyn Fn(f32),
) -> Result<(Box<dyn Model>, usize), LoadError>
where
    B: Backend + 'static,
    B::Rope: Clone,
{
    let Source { tensors, config, .. } = &**source;
    let device = backend(threads);
    if let Some(share) = &share {
        share.check(config.expert_layers().count(), config.experts()[0])?;
    }
    device.check(&Need::new(source, room, draft, share.as_ref())?)?;
    let mut loader = Loader::new(&**tensors, &device, source.quantization, progress);
    // Every rank has all of it.
    let draft = match draft {
        true => Some(Draft::new(&device, config, DraftWeights::load(&loader, config)?, room)?),
        false => None,
    };
    if let Some(share) = &share {
        loader = loader.only(share.map, share.rank);
    }
    let weights = DecoderWeights::load(&loader, config)?;
    let read = loader.bytes_held();
    let ranks = match share {
        Some(share) => {
            let (hidden, activations) = (config.hidden, share.activations);
            let load = expert_loader(source.clone());
            Some(share.open(Host::new(hidden, activations, weights.experts(), backend, load))?)
        }
        None => None,
    };
    let model = Decoder::new(device, config, weights, room, ranks)?.with(draft);
    Ok((Box::new(model), read))
}

/// Reads single experts later, by their layer's number among those with experts.
fn expert_loader<B: Backend>(source: Arc<Source>) -> Box<LoadExpert<B>> {
    let layers: Vec<(usize, MoePlan)> =
        source.config.expert_layers().map(|(l, plan)| (l, plan.clone())).collect();
    Box::new(move |backend: &B, number, expert| {
        let Source { tensors, config, quantization } = &*source;
        let (layer, plan) = &layers[number];
        let loader = Loader::new(&**tensors, backend, *quantization, &|_| {});
        load_expert(&loader, config, plan, *layer, expert)
    })
}

/// Walks the tensors of the model that `config` describes, checks them, and sums up what holding them takes.
pub fn weigh(tensors: &dyn Tensors, config: &Config) -> Result<Tally, LoadError> {
    let tally = Tally::default();
    let loader = Loader::new(tensors, &tally, Quantization::None, &|_| {});
    DecoderWeights::load(&loader, config)?;
    Ok(tally)
}

/// The same for the draft module; nothing, if there is none that this build reads. Who asks for it all the same is told
/// why when it is loaded, and nobody else needs it.
pub fn weigh_draft_module(tensors: &dyn Tensors, config: &Config) -> Option<Tally> {
    let tally = Tally::default();
    let loader = Loader::new(tensors, &tally, Quantization::None, &|_| {});
    DraftWeights::load(&loader, config).ok()?;
    Some(tally)
}

/// Bytes of per-layer state that one token leaves in the cache, all layers together.
pub fn state_bytes_per_token(config: &Config) -> usize {
    config.layers.iter().map(bytes_per_token).sum()
}

/// Those of the draft module, which is like the last layer.
pub fn draft_bytes_per_token(config: &Config) -> usize {
    config.layers.last().map_or(0, bytes_per_token)
}

fn bytes_per_token(layer: &LayerPlan) -> usize {
    match &layer.mixer {
        Mixer::Attention(attention) => attention.shape.bytes_per_token(),
        Mixer::Latent(latent) => latent.shape.bytes_per_token(),
        Mixer::Lightning(_) => 0,
    }
}

/// Bytes of running state that one sequence has, all layers together, however long it is: the sums, and the keys and
/// values of the last block.
pub fn running_state_bytes(config: &Config) -> usize {
    snapshot_bytes(config)
        + lightning_layers(config).map(|l| l.heads() * l.head_dim * 2 * BLOCK_SIZE).sum::<usize>()
            * size_of::<f32>()
}

/// Bytes of one snapshot of it: the sums alone.
pub fn snapshot_bytes(config: &Config) -> usize {
    lightning_layers(config).map(|l| l.heads() * l.head_dim * l.head_dim).sum::<usize>() * size_of::<f32>()
}

fn lightning_layers(config: &Config) -> impl Iterator<Item = &LightningPlan> {
    config.layers.iter().filter_map(|layer| match &layer.mixer {
        Mixer::Lightning(lightning) => Some(lightning),
        Mixer::Attention(_) | Mixer::Latent(_) => None,
    })
}
