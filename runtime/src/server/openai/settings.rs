//! What chat completions and completions have in common: how tokens are chosen, when the answer ends, how it is sent.

use super::error::ApiError;
use super::fresh_number;
use super::parameters::{Neutral, Parameters, wrong_type};
use crate::stop_strings::LONGEST;
use coterie_engine::Sampling;
use serde_json::Value;

/// Stop strings of one request at most.
const STOPS: usize = 4;
/// The largest number that is taken for a number of tokens; the context decides below it.
pub(super) const MOST_TOKENS: i64 = u32::MAX as i64;

/// How an answer is generated and sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub sampling: Sampling,
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
        let seed = parameters.integer("seed", i64::MIN..=i64::MAX)?;
        let sampling = Sampling {
            temperature,
            top_p,
            seed: seed.map_or_else(fresh_number, i64::cast_unsigned),
            ..Sampling::greedy()
        };
        let stops = stops(parameters)?;
        let streamed = streamed(parameters)?;
        // Who asks is nobody's business here.
        for ignored in ["user", "safety_identifier", "prompt_cache_key"] {
            parameters.string(ignored)?;
        }
        parameters.only_neutral(NEUTRAL)?;
        Ok(Settings { sampling, stops, streamed })
    }
}

/// Accepted by both endpoints where they change nothing, because clients send them so.
const NEUTRAL: &[Neutral] = &[
    Neutral { name: "n", is_neutral: |v| v.as_f64() == Some(1.0) },
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
