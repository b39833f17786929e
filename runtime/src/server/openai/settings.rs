//! What chat completions and completions have in common: how tokens are chosen, when the answer ends, how it is sent.

use super::error::ApiError;
use super::parameters::{Neutral, Parameters};
use super::stops::Stops;
use super::{fresh_number, replay, sampling};
use crate::generation::{Shown, Wanted};
use crate::served_model::ServedModel;
use coterie_api::replay::{Journal, PARAMETER};
use coterie_engine::{Rejected, Request, Sampling};
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

/// Choices of one answer at most.
pub(super) const MOST_CHOICES: usize = 128;
/// The largest number that is taken for a number of tokens; the context decides below it.
pub(super) const MOST_TOKENS: i64 = u32::MAX as i64;
/// The class that goes last.
pub(super) const LAST_PRIORITY: i64 = 100;
/// Entries of `metadata` at most.
const MOST_METADATA: usize = 16;
/// `cache_salt` at most, bytes.
pub(super) const LONGEST_SALT: usize = 256;

/// How an answer is generated and sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    /// Choices for each prompt.
    pub n: usize,
    pub streamed: Option<Streamed>,
    /// The client's, or one that was drawn.
    pub seed: u64,
    /// What another rank generated of the answer.
    pub replay: Option<Journal>,
    seed_is_drawn: bool,
    /// With any seed.
    sampling: Sampling,
    stops: Stops,
    show_special_tokens: bool,
    priority: u8,
    cache_scope: u64,
}

/// The answer is sent while it is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Streamed {
    pub usage: UsageChunks,
}

/// Which chunks of a stream count the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum UsageChunks {
    /// None of them.
    None,
    /// One more at the end.
    Last,
    /// Each of them, and one more at the end.
    All,
}

impl Settings {
    pub fn take(parameters: &mut Parameters, model: &ServedModel) -> Result<Settings, ApiError> {
        let vocabulary = model.engine.vocabulary();
        let seed = parameters.integer("seed", i64::MIN..=i64::MAX)?.map(i64::cast_unsigned);
        let streamed = streamed(parameters)?;
        let replay = replay::take(parameters, vocabulary, streamed.is_some())?;
        let settings = Settings {
            n: parameters.integer("n", 1..=MOST_CHOICES as i64)?.unwrap_or(1) as usize,
            streamed,
            seed: agreed(seed, replay.as_ref())?,
            replay,
            seed_is_drawn: seed.is_none(),
            sampling: sampling::take(parameters, vocabulary)?,
            stops: Stops::take(parameters, vocabulary)?,
            show_special_tokens: !parameters.boolean("skip_special_tokens")?.unwrap_or(true),
            priority: priority(parameters)?,
            cache_scope: cache_scope(parameters)?,
        };
        // Who asks, and what for, is nobody's business here.
        for ignored in ["user", "safety_identifier", "prompt_cache_key"] {
            parameters.string(ignored)?;
        }
        ignore_metadata(parameters)?;
        parameters.only_neutral(NEUTRAL)?;
        Ok(settings)
    }

    /// `n` choices of each prompt. The i-th of a prompt has seed + i, whatever other prompts there are; where the
    /// seed was drawn, all choices of the answer have different ones. A prompt that the engine would refuse for its length
    /// is refused before there are `n` copies of it; it came in `param`.
    pub fn wanted(self, prompts: &[Request], param: &str, model: &ServedModel) -> Result<Wanted, ApiError> {
        let context = model.engine.context_length();
        for Request { prompt, max_tokens, .. } in prompts {
            let (prompt, max_tokens) = (prompt.len(), *max_tokens);
            if prompt.saturating_add(max_tokens) > context {
                let rule = Rejected::TooLong { prompt, max_tokens, context };
                return Err(ApiError::rejected(&rule, param));
            }
        }
        let choice = |number: usize| {
            let prompt = &prompts[number / self.n];
            let step = if self.seed_is_drawn { number } else { number % self.n };
            let seed = self.seed.wrapping_add(step as u64);
            Request {
                sampling: Sampling { seed, ..self.sampling.clone() },
                stop_tokens: self.stops.tokens(model.engine.stop_tokens()),
                priority: self.priority,
                cache_scope: self.cache_scope,
                ..prompt.clone()
            }
        };
        Ok(Wanted {
            requests: (0..prompts.len() * self.n).map(choice).collect(),
            choices_per_prompt: self.n,
            calls: None,
            shown: Shown {
                stops: self.stops.shown,
                special_tokens: self.show_special_tokens,
                ..Shown::default()
            },
            stops: self.stops.strings,
        })
    }
}

/// The seed of an answer: the client's, or where it gave none that with which the answer began, or a new one.
fn agreed(given: Option<u64>, replay: Option<&Journal>) -> Result<u64, ApiError> {
    match (given, replay.map(|journal| journal.begun.seed)) {
        (Some(seed), Some(began)) if seed != began => {
            let message = format!("'{PARAMETER}.begun.seed' is {began}, but the request's 'seed' is {seed}.");
            Err(ApiError::invalid(PARAMETER, message))
        }
        (given, began) => Ok(given.or(began).unwrap_or_else(fresh_number)),
    }
}

/// Accepted by both endpoints where they change nothing, because clients send them so.
const NEUTRAL: &[Neutral] = &[
    Neutral { name: "service_tier", is_neutral: |v| v == "auto" || v == "default" },
    Neutral { name: "store", is_neutral: |v| v == false },
];

fn priority(parameters: &mut Parameters) -> Result<u8, ApiError> {
    let given = parameters
        .integer("priority", 0..=LAST_PRIORITY)
        .map_err(|refused| refused.with(" 0 goes first: a client can step back, but not ahead of others."))?;
    Ok(given.unwrap_or(0) as u8)
}

/// Requests of the same `cache_salt` share a scope, those without one the scope 0. The key that is mixed in keeps a client
/// from finding another salt with the same scope.
fn cache_scope(parameters: &mut Parameters) -> Result<u64, ApiError> {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let path = parameters.path("cache_salt");
    match parameters.string("cache_salt")? {
        None => Ok(0),
        Some(salt) if salt.is_empty() || salt.len() > LONGEST_SALT => Err(ApiError::invalid(
            &path,
            format!("'{path}' must have 1 to {LONGEST_SALT} bytes, not {}.", salt.len()),
        )),
        Some(salt) => Ok(KEY.hash_one(salt).max(1)),
    }
}

/// Only answers that are stored could be found by their `metadata`, and none is.
fn ignore_metadata(parameters: &mut Parameters) -> Result<(), ApiError> {
    let path = parameters.path("metadata");
    let Some(mut fields) = parameters.object("metadata")? else { return Ok(()) };
    let names = fields.names();
    if names.len() > MOST_METADATA {
        let message = format!("'{path}' may have {MOST_METADATA} entries at most, not {}.", names.len());
        return Err(ApiError::invalid(&path, message));
    }
    names.into_iter().try_for_each(|name| fields.string(&name).map(drop))
}

fn streamed(parameters: &mut Parameters) -> Result<Option<Streamed>, ApiError> {
    let stream = parameters.boolean("stream")?.unwrap_or(false);
    let Some(mut options) = parameters.object("stream_options")? else {
        return Ok(stream.then_some(Streamed { usage: UsageChunks::None }));
    };
    if !stream {
        return Err(ApiError::invalid(
            "stream_options",
            "'stream_options' is only allowed when 'stream' is true.",
        ));
    }
    let last = options.boolean("include_usage")?.unwrap_or(false);
    let all = options.boolean("continuous_usage_stats")?.unwrap_or(false);
    options.only_neutral(&[Neutral { name: "include_obfuscation", is_neutral: |v| v == false }])?;
    let path = options.path("continuous_usage_stats");
    options.finish()?;
    let usage = match (last, all) {
        (false, false) => UsageChunks::None,
        (true, false) => UsageChunks::Last,
        (true, true) => UsageChunks::All,
        (false, true) => {
            let message = format!("'{path}' is only allowed when 'stream_options.include_usage' is true.");
            return Err(ApiError::invalid(&path, message));
        }
    };
    Ok(Some(Streamed { usage }))
}
