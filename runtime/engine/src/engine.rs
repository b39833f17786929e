//! The engine's door: load, submit, step, cancel.

use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::backend::cuda::Cuda;
use crate::batch::{Batch, Draw};
use crate::block_pool::{BLOCK_SIZE, blocks_for};
use crate::emit;
use crate::load_error::LoadError;
use crate::model::config::Config;
use crate::model::{self, Model, Room, Source};
use crate::moe::host::MakeBackend;
use crate::moe::share::Share;
use crate::request::{Event, Rejected, Request, RequestId};
use crate::sampler::Sampler;
use crate::scheduler::{Counts, Limits, Scheduler, Wanted};
use crate::sequence::Sequence;
use crate::speculation::{DraftLimits, Worth};
use crate::state::{StateLimits, StateRoom};
use crate::tiles;
use crate::weights::Tensors;
use crate::weights::shard::Checkpoint;
use crate::weights::untrained::Untrained;
use coterie_api::launch::{Device, Quantization, Speculate};
use coterie_kernels::cuda::driver::Driver;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows that one step computes unless told otherwise.
pub const STEP_TOKENS: usize = 512;
/// Rows of prompts in a step in which somebody decodes, unless told otherwise. A row of such a step costs 3 to 7 %
/// more than one of a full step, and the step lasts about a quarter as long (docs/bench/engine.md).
pub const MIXED_PROMPT_TOKENS: usize = 128;
/// Rows of logits that are computed at a time.
pub const LOGIT_ROWS: usize = 32;
/// Tokens that the cache holds beside one whole context, so that a long request does not keep all others out.
pub const SPARE_TOKENS: usize = 2048;

/// What may be drafted unless told otherwise. With 2 of 8 experts a token, the second row of a step costs 0.6 of the
/// first, the eighth 0.2, and each behind the sixteenth most of what a token costs then (docs/bench/speculation.md).
pub const DRAFTS: DraftLimits =
    DraftLimits { module: false, tokens: 15, rows: 32, worth: Worth { first: 0.6, further: 0.45 } };

/// Requests in one batch unless told otherwise.
pub const MAX_RUNNING: usize = 16;
/// Snapshots of running states, for a model that has such.
pub const SNAPSHOTS: usize = 16;
/// Blocks from one of a sequence to the next, at first: see [`StateLimits`].
pub const SNAPSHOT_BLOCKS: usize = 64;

/// How a model is loaded and how much runs at once.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How the weights are held.
    pub quantization: Quantization,
    /// What to compute on.
    pub device: Device,
    /// Folder with the kernels' machine code for GPUs, which has a folder for each architecture.
    pub cubins: PathBuf,
    /// May a GPU record steps that only decode, and repeat them?
    pub cuda_graphs: bool,
    /// Longest request, prompt and answer, tokens; the model's own when absent.
    pub context_length: Option<usize>,
    /// Threads to compute with; 0 takes all cores this process may use.
    pub threads: usize,
    /// Requests in one batch at most.
    pub max_running: usize,
    /// Requests that may wait at most.
    pub max_waiting: usize,
    /// Tokens that waiting requests came with at most.
    pub max_waiting_tokens: usize,
    /// Rows that one step computes, unless more requests than that are running.
    pub step_tokens: usize,
    /// Rows of prompts in a step in which somebody decodes: what others' prompts may add to the wait for a token.
    pub mixed_prompt_tokens: usize,
    /// How long a token may take after the one before it: chunks of prompts become so large that steps take about that
    /// long. Without it they stay as they are.
    pub itl: Option<Duration>,
    /// Tokens that the cache holds, all requests together; [`cache_tokens`] when absent.
    pub cache_tokens: Option<usize>,
    /// May requests take over what others computed for the same beginning?
    pub prefix_cache: bool,
    /// Where guesses of the next tokens come from, which are computed together with the last one.
    pub speculate: Speculate,
    /// Tokens that one request guesses at most.
    pub draft_tokens: usize,
    /// Are the weights to be random, and only config.json to be read? For benchmarks.
    pub untrained: bool,
}

/// Tokens that the cache of a rank holds unless told otherwise: one request of the whole context, and up to
/// [`SPARE_TOKENS`] for others. More requests run as long as what they have written so far fits. What is not used
/// costs no memory.
pub fn cache_tokens(context: usize, max_running: usize) -> usize {
    let others = max_running.saturating_sub(1).saturating_mul(context);
    context.saturating_add(others.min(SPARE_TOKENS))
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            quantization: Quantization::None,
            device: Device::Cpu,
            cubins: PathBuf::new(),
            cuda_graphs: true,
            context_length: None,
            threads: 0,
            max_running: MAX_RUNNING,
            max_waiting: 256,
            max_waiting_tokens: 1 << 18,
            step_tokens: STEP_TOKENS,
            mixed_prompt_tokens: MIXED_PROMPT_TOKENS,
            itl: None,
            cache_tokens: None,
            prefix_cache: true,
            speculate: Speculate::Lookup,
            draft_tokens: DRAFTS.tokens,
            untrained: false,
        }
    }
}

/// What the engine is doing right now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests that wait for their first step.
    pub waiting: usize,
    /// Requests in the running batch.
    pub running: usize,
    /// Tokens that waiting requests came with: prompts, and what was generated of their answers before.
    pub waiting_tokens: usize,
    /// Tokens of requests in the running batch that have yet to be computed before their first answer's.
    pub prefilling_tokens: usize,
    /// Share of the KV cache that running requests hold, 0 to 1.
    pub kv_usage: f32,
    /// Since the engine was loaded.
    pub scheduled: Counts,
    /// Tokens generated since the engine was loaded.
    pub generated_tokens: u64,
}

/// What loading a model took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Bytes of the checkpoint that were brought into memory: of a rank of several, its share.
    pub bytes: usize,
    /// From the beginning to the last of them.
    pub time: Duration,
}

impl Loaded {
    /// Bytes a second; 0 where nothing took no time.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// A loaded model and the requests that run on it. It stays on the thread that loaded it.
pub struct Engine {
    model: Box<dyn Model>,
    scheduler: Scheduler,
    sampler: Sampler,
    stop_tokens: Vec<u32>,
    next_id: u64,
    generated_tokens: u64,
    loaded: Loaded,
    /// Scratch, filled anew each step.
    batch: Batch,
    wanted: Vec<Wanted>,
    followers: Followers,
}

/// What a draft module is given, and what it gives.
#[derive(Default)]
struct Followers {
    batch: Batch,
    seen: Vec<u32>,
    asking: Vec<usize>,
    guesses: Vec<u32>,
}

impl Engine {
    /// Loads the model folder `dir`; `progress` is told the share of the weights that is loaded, 0 to 1.
    pub fn load(dir: &Path, options: &EngineOptions, progress: &dyn Fn(f32)) -> Result<Engine, LoadError> {
        Engine::load_with(dir, options, None, |_| {}, progress)
    }

    /// Like [`load`](Engine::load), with one rank's share of the experts, if there are several, and with the limits
    /// that follow from the options changed by `adjust`.
    pub fn load_with(
        dir: &Path,
        options: &EngineOptions,
        share: Option<Share<'_>>,
        adjust: impl FnOnce(&mut Limits),
        progress: &dyn Fn(f32),
    ) -> Result<Engine, LoadError> {
        match options.device {
            Device::Cpu => Engine::load_on(Arc::new(Cpu::new), dir, options, share, adjust, progress),
            Device::Gpu => {
                let gpu = Arc::new(Driver::open(&options.cubins)?);
                let graphs = options.cuda_graphs;
                let table = Arc::new(tiles::read(&options.cubins, gpu.architecture())?);
                let backend = move |threads| match Cuda::new(gpu.clone(), threads).with_tiles(table.clone()) {
                    cuda if graphs => cuda,
                    cuda => cuda.without_graphs(),
                };
                Engine::load_on(Arc::new(backend), dir, options, share, adjust, progress)
            }
        }
    }

    /// Like [`load_with`](Engine::load_with), on the backends that `backend` makes, whatever device the options name.
    pub fn load_on<B>(
        backend: MakeBackend<B>,
        dir: &Path,
        options: &EngineOptions,
        share: Option<Share<'_>>,
        adjust: impl FnOnce(&mut Limits),
        progress: &dyn Fn(f32),
    ) -> Result<Engine, LoadError>
    where
        B: Backend + 'static,
        B::Rope: Clone,
    {
        let config = Config::read(dir)?;
        let mut limits = limits(options, &config)?;
        adjust(&mut limits);
        let stop_tokens = config.stop_tokens.clone();
        let tensors: Box<dyn Tensors + Send + Sync> = match options.untrained {
            true => Box::new(Untrained::new(dir)?),
            false => Box::new(Checkpoint::open(dir)?),
        };
        let source = Arc::new(Source { tensors, config, quantization: options.quantization });
        let states = match limits.states {
            Some(StateLimits { snapshots, .. }) => StateRoom { slots: limits.max_running, snapshots },
            None => StateRoom::default(),
        };
        let room = Room { blocks: limits.blocks, states, rows: limits.step_tokens.max(limits.max_running) };
        let draft = limits.drafts.is_some_and(|drafts| drafts.module);
        let started = Instant::now();
        let (model, bytes) = model::load(&source, backend, options.threads, room, draft, share, progress)?;
        progress(1.0);
        let loaded = Loaded { bytes, time: started.elapsed() };
        Ok(Engine { loaded, ..Engine::new(model, limits, stop_tokens) })
    }

    /// An engine on a model whose cache has `limits.blocks` blocks.
    pub fn new(model: Box<dyn Model>, limits: Limits, stop_tokens: Vec<u32>) -> Engine {
        Engine {
            model,
            scheduler: Scheduler::new(limits),
            sampler: Sampler::default(),
            stop_tokens,
            next_id: 0,
            generated_tokens: 0,
            loaded: Loaded::default(),
            batch: Batch::default(),
            wanted: Vec::new(),
            followers: Followers::default(),
        }
    }

    /// Queues a request. It starts in one of the next [`step`](Engine::step)s.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, Rejected> {
        let Limits { context, max_waiting, max_waiting_tokens, .. } = *self.scheduler.limits();
        let (prompt, max_tokens) = (request.prompt.len(), request.max_tokens);
        if prompt == 0 {
            return Err(Rejected::EmptyPrompt);
        }
        if max_tokens == 0 && request.prompt_logprobs.is_none() {
            return Err(Rejected::NothingToDo);
        }
        if prompt.saturating_add(max_tokens) > context {
            return Err(Rejected::TooLong { prompt, max_tokens, context });
        }
        if request.is_over() {
            return Err(Rejected::Over { generated: request.generated.len() });
        }
        let vocabulary = self.vocabulary();
        let biased = request.sampling.logit_bias.iter().map(|(token, _)| token);
        let mut named = request.prompt.iter().chain(&request.generated).chain(biased);
        if let Some(&token) = named.find(|token| **token as usize >= vocabulary) {
            return Err(Rejected::UnknownToken { token, vocabulary });
        }
        let (waiting, tokens) = (self.scheduler.waiting().len(), self.scheduler.waiting().given_tokens());
        if waiting >= max_waiting {
            return Err(Rejected::QueueFull { waiting, limit: max_waiting });
        }
        if waiting > 0 && tokens + request.given() > max_waiting_tokens {
            return Err(Rejected::TokensFull { waiting: tokens, limit: max_waiting_tokens });
        }
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.scheduler.enqueue(Sequence::new(id, request));
        Ok(id)
    }

    /// Ends a request at once and frees what it holds. An unknown or finished one is left alone.
    pub fn cancel(&mut self, id: RequestId) {
        self.scheduler.remove(id);
    }

    /// Computes one step, schedule → forward → sample → emit, and appends what happened to `events`.
    pub fn step(&mut self, events: &mut Vec<Event>) {
        let began = Instant::now();
        self.scheduler.schedule(&mut self.batch, &mut self.wanted);
        if self.batch.rows() == 0 {
            return;
        }
        for sequence in self.scheduler.running() {
            emit::start(sequence, events);
        }
        let running = self.scheduler.running();
        self.batch
            .draws
            .extend(self.wanted.iter().map(|wanted| draw(&running[wanted.running], wanted.position)));
        self.model.forward(&self.batch);
        for first in (0..self.wanted.len()).step_by(LOGIT_ROWS) {
            let last = (first + LOGIT_ROWS).min(self.wanted.len());
            let logits = self.model.logits(first..last);
            for (row, wanted) in self.wanted[first..last].iter().enumerate() {
                let sequence = &mut self.scheduler.running()[wanted.running];
                let row_token = self.batch.tokens[self.batch.logit_rows[first + row] as usize];
                if wanted.position + 1 < sequence.tokens.len() {
                    emit::score_prompt(sequence, wanted.position, logits, row);
                } else if !sequence.ended && sequence.tokens.get(wanted.position) == Some(&row_token) {
                    let before = sequence.tokens.len();
                    emit::generate(&mut self.sampler, sequence, logits, row, events);
                    self.generated_tokens += (sequence.tokens.len() - before) as u64;
                }
            }
        }
        self.scheduler.settle();
        if self.model.drafts() {
            self.ask_draft_module();
        }
        for sequence in self.scheduler.running() {
            emit::end_of_scoring(sequence, events);
        }
        self.scheduler.retire(|sequence| sequence.ended);
        self.scheduler.took(began.elapsed());
    }

    /// Shows the draft module what followed the rows of the step, so that its own state is that of the texts, and takes
    /// its guesses for the next.
    fn ask_draft_module(&mut self) {
        let Followers { batch, seen, asking, guesses } = &mut self.followers;
        self.scheduler.followers(batch, seen, asking);
        if batch.rows() > 0 {
            self.model.draft(batch, seen, guesses);
            for (running, guess) in asking.iter().zip(guesses) {
                self.scheduler.running()[*running].set_next(*guess);
            }
        }
    }

    /// Nothing waits and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.scheduler.waiting().is_empty() && self.scheduler.running_count() == 0
    }

    /// What the engine is doing right now.
    pub fn load_now(&self) -> Load {
        let (held, blocks) = self.scheduler.blocks_held();
        Load {
            waiting: self.scheduler.waiting().len(),
            running: self.scheduler.running_count(),
            waiting_tokens: self.scheduler.waiting().given_tokens(),
            prefilling_tokens: self.scheduler.prefilling_tokens(),
            kv_usage: held as f32 / blocks as f32,
            scheduled: self.scheduler.counts(),
            generated_tokens: self.generated_tokens,
        }
    }

    /// Requests in one batch at most.
    pub fn max_running(&self) -> usize {
        self.scheduler.limits().max_running
    }

    /// Longest request, prompt and answer, tokens.
    pub fn context_length(&self) -> usize {
        self.scheduler.limits().context
    }

    /// What loading it took; nothing, where it was made of a model that was there.
    pub fn loaded(&self) -> Loaded {
        self.loaded
    }

    /// Token ids below this exist.
    pub fn vocabulary(&self) -> usize {
        self.model.vocabulary()
    }

    /// Does the device repeat steps that it has recorded (CUDA graphs)? Not before the first step that only decodes.
    pub fn repeats_steps(&self) -> bool {
        self.model.repeats_steps()
    }

    /// The model's end-of-sequence tokens, from generation_config.json, else from config.json.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop_tokens
    }
}

/// How the device may draw the token behind `position` of a sequence. What it draws is not looked at where this process has to:
/// a mask is known only when the token before it is; so are counts that penalties ask for, and they change.
fn draw(sequence: &Sequence, position: usize) -> Draw {
    let Request { sampling, constraint, prompt, .. } = &sequence.request;
    match constraint.is_none() && sampling.takes_logits_as_they_are() {
        true => Draw::of(sampling, (position + 1).saturating_sub(prompt.len())),
        false => Draw::BEST,
    }
}

/// The limits that follow from the options: the context that was asked for must be one that the model can serve.
fn limits(options: &EngineOptions, config: &Config) -> Result<Limits, LoadError> {
    let zero = |option| Err(LoadError::ZeroOption { option });
    let context = options.context_length.unwrap_or(config.context_length);
    if context == 0 {
        return zero("the context length");
    }
    if options.max_running == 0 {
        return zero("the number of requests that may run");
    }
    if options.step_tokens == 0 || options.mixed_prompt_tokens == 0 {
        return zero("the number of tokens of a step");
    }
    if context > config.context_length {
        return Err(LoadError::ContextTooLong { asked: context, limit: config.context_length });
    }
    let cache = options.cache_tokens.unwrap_or_else(|| cache_tokens(context, options.max_running));
    if cache < context {
        return Err(LoadError::CacheTooSmall { asked: cache, context });
    }
    let blocks = blocks_for(cache);
    if blocks > u32::MAX as usize / BLOCK_SIZE {
        // A batch names places in the cache by 32 bits.
        return Err(LoadError::CacheTooLarge { blocks });
    }
    Ok(Limits {
        context,
        blocks,
        step_tokens: options.step_tokens,
        mixed_prompt_tokens: options.mixed_prompt_tokens,
        itl: options.itl,
        max_running: options.max_running,
        max_waiting: options.max_waiting,
        max_waiting_tokens: options.max_waiting_tokens,
        prefix_cache: options.prefix_cache,
        drafts: match options.speculate {
            Speculate::None => None,
            Speculate::Lookup => Some(DraftLimits { tokens: options.draft_tokens, ..DRAFTS }),
            Speculate::Mtp => Some(DraftLimits { module: true, tokens: options.draft_tokens, ..DRAFTS }),
        },
        states: (model::running_state_bytes(config) > 0)
            .then_some(StateLimits { snapshots: SNAPSHOTS, every: SNAPSHOT_BLOCKS }),
    })
}
