//! What chat completions and completions have in common: how tokens are chosen, when the answer ends, how it is sent.

use super::error::ApiError;
use super::fresh_number;
use super::parameters::{Neutral, Parameters, wrong_type};
use crate::generation::Wanted;
use crate::stop_strings::LONGEST;
use coterie_engine::{Request, Sampling};
use serde_json::Value;

/// Stop strings of one request at most.
const STOPS: usize = 4;
/// The largest number that is taken for a number of tokens; the context decides below it.
pub(super) const MOST_TOKENS: i64 = u32::MAX as i64;

/// Choices of one answer at most.
pub(super) const MOST_CHOICES: usize = 128;

/// How an answer is generated and sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    /// Choices for each prompt.
    pub n: usize,
    /// With any seed.
    sampling: Sampling,
    seed: Option<u64>,
    pub stops: Vec<String>,
    pub streamed: Option<Streamed>,
}

/// The answer is sent while it is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Streamed {
    /// A last chunk counts the tokens.
    pub include_usage: bool,
}

impl Settings {
    pub fn take(parameters: &mut Parameters) -> Result<Settings, ApiError> {
        let temperature = parameters.number("temperature", 0.0..=2.0)?.unwrap_or(1.0) as f32;
        let top_p = parameters.number("top_p", 0.0..=1.0)?.unwrap_or(1.0) as f32;
        let n = parameters.integer("n", 1..=MOST_CHOICES as i64)?.unwrap_or(1) as usize;
        let seed = parameters.integer("seed", i64::MIN..=i64::MAX)?.map(i64::cast_unsigned);
        let sampling = Sampling { temperature, top_p, ..Sampling::greedy() };
        let stops = stops(parameters)?;
        let streamed = streamed(parameters)?;
        // Who asks is nobody's business here.
        for ignored in ["user", "safety_identifier", "prompt_cache_key"] {
            parameters.string(ignored)?;
        }
        parameters.only_neutral(NEUTRAL)?;
        Ok(Settings { n, sampling, seed, stops, streamed })
    }

    /// `n` choices of each prompt. The i-th of a prompt has seed + i, whatever other prompts there are.
    pub fn wanted(&self, prompts: &[Request]) -> Wanted {
        let choice = |prompt: &Request, index: usize| {
            let seed = self.seed.map_or_else(fresh_number, |seed| seed.wrapping_add(index as u64));
            Request { sampling: Sampling { seed, ..self.sampling.clone() }, ..prompt.clone() }
        };
        let requests = prompts.iter().flat_map(|prompt| (0..self.n).map(|index| choice(prompt, index)));
        Wanted {
            requests: requests.collect(),
            choices_per_prompt: self.n,
            stops: self.stops.clone(),
            shown: Vec::new(),
        }
    }
}

/// Accepted by both endpoints where they change nothing, because clients send them so.
const NEUTRAL: &[Neutral] = &[
    Neutral { name: "presence_penalty", is_neutral: |v| v.as_f64() == Some(0.0) },
    Neutral { name: "frequency_penalty", is_neutral: |v| v.as_f64() == Some(0.0) },
    Neutral { name: "logit_bias", is_neutral: empty },
];

/// An empty object or array.
pub(super) fn empty(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

fn stops(parameters: &mut Parameters) -> Result<Vec<String>, ApiError> {
    let path = parameters.path("stop");
    let given = match parameters.any("stop") {
        None => Vec::new(),
        Some(Value::Array(items)) => items,
        Some(one) => vec![one],
    };
    if given.len() > STOPS {
        return Err(ApiError::invalid(
            &path,
            format!("'{path}' may have {STOPS} strings at most, not {}.", given.len()),
        ));
    }
    let stop = |value: Value| match value {
        Value::String(text) if text.is_empty() => {
            Err(ApiError::invalid(&path, format!("'{path}' must not hold an empty string.")))
        }
        Value::String(text) if text.len() > LONGEST => Err(ApiError::invalid(
            &path,
            format!("A string in '{path}' may have {LONGEST} bytes at most, not {}.", text.len()),
        )),
        Value::String(text) => Ok(text),
        other => Err(wrong_type(&path, "a string or an array of strings", &other)),
    };
    given.into_iter().map(stop).collect()
}

fn streamed(parameters: &mut Parameters) -> Result<Option<Streamed>, ApiError> {
    let stream = parameters.boolean("stream")?.unwrap_or(false);
    let Some(mut options) = parameters.object("stream_options")? else {
        return Ok(stream.then_some(Streamed { include_usage: false }));
    };
    if !stream {
        return Err(ApiError::invalid(
            "stream_options",
            "'stream_options' is only allowed when 'stream' is true.",
        ));
    }
    let include_usage = options.boolean("include_usage")?.unwrap_or(false);
    options.only_neutral(&[Neutral { name: "include_obfuscation", is_neutral: |v| v == false }])?;
    options.finish()?;
    Ok(Some(Streamed { include_usage }))
}
