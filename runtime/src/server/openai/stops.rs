//! When an answer ends, beside at its last token allowed.

use super::error::ApiError;
use super::parameters::{Parameters, wrong_type};
use super::token_ids::token_ids;
use crate::stop_strings::LONGEST;
use serde_json::Value;

/// Stop strings of one request at most.
pub(super) const MOST_STRINGS: usize = 4;
/// Stop tokens of one request at most, beside the model's own.
pub(super) const MOST_TOKENS: usize = 64;

/// Before which strings and at which tokens an answer ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stops {
    pub strings: Vec<String>,
    /// What ended the answer is part of it.
    pub shown: bool,
    tokens: Vec<u32>,
    /// The model's own stop tokens do not end it.
    ignore_eos: bool,
}

impl Stops {
    /// Token ids below `vocabulary` exist.
    pub fn take(parameters: &mut Parameters, vocabulary: usize) -> Result<Stops, ApiError> {
        Ok(Stops {
            strings: strings(parameters)?,
            shown: parameters.boolean("include_stop_str_in_output")?.unwrap_or(false),
            tokens: tokens(parameters, vocabulary)?,
            ignore_eos: parameters.boolean("ignore_eos")?.unwrap_or(false),
        })
    }

    /// The tokens that end an answer of a model that ends its answers with `own`.
    pub fn tokens(&self, own: &[u32]) -> Vec<u32> {
        let own = own.iter().filter(|_| !self.ignore_eos);
        own.chain(&self.tokens).copied().collect()
    }
}

fn strings(parameters: &mut Parameters) -> Result<Vec<String>, ApiError> {
    let path = parameters.path("stop");
    let given = match parameters.any("stop") {
        None => Vec::new(),
        Some(Value::Array(items)) => items,
        Some(one) => vec![one],
    };
    if given.len() > MOST_STRINGS {
        return Err(ApiError::invalid(
            &path,
            format!("'{path}' may have {MOST_STRINGS} strings at most, not {}.", given.len()),
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

fn tokens(parameters: &mut Parameters, vocabulary: usize) -> Result<Vec<u32>, ApiError> {
    let path = parameters.path("stop_token_ids");
    let given = parameters.array("stop_token_ids")?.unwrap_or_default();
    if given.len() > MOST_TOKENS {
        let message = format!("'{path}' may have {MOST_TOKENS} tokens at most, not {}.", given.len());
        return Err(ApiError::invalid(&path, message));
    }
    token_ids(&given, &path, vocabulary)
}
