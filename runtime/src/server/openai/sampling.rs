//! How a token is chosen: OpenAI's parameters, and those that vLLM adds to them.

use super::error::ApiError;
use super::parameters::Parameters;
use super::token_ids::{no_token, token_of};
use coterie_engine::Sampling;

/// Tokens of `logit_bias` at most.
pub(super) const MOST_BIASES: usize = 300;

/// Takes everything but the seed. Token ids below `vocabulary` exist.
pub(super) fn take(parameters: &mut Parameters, vocabulary: usize) -> Result<Sampling, ApiError> {
    let mut number = |name, least: f64, most: f64, neutral: f64| {
        let given = parameters.number(name, least..=most)?;
        Ok(given.unwrap_or(neutral) as f32)
    };
    Ok(Sampling {
        temperature: number("temperature", 0.0, 2.0, 1.0)?,
        top_p: number("top_p", 0.0, 1.0, 1.0)?,
        min_p: number("min_p", 0.0, 1.0, 0.0)?,
        repetition_penalty: number("repetition_penalty", 0.01, 10.0, 1.0)?,
        presence_penalty: number("presence_penalty", -2.0, 2.0, 0.0)?,
        frequency_penalty: number("frequency_penalty", -2.0, 2.0, 0.0)?,
        top_k: top_k(parameters)?,
        logit_bias: logit_bias(parameters, vocabulary)?,
        ..Sampling::greedy()
    })
}

/// vLLM writes "all" as -1 or 0.
fn top_k(parameters: &mut Parameters) -> Result<usize, ApiError> {
    let given = parameters.integer("top_k", -1..=i64::from(u32::MAX))?;
    Ok(given.map_or(0, |top| top.max(0) as usize))
}

fn logit_bias(parameters: &mut Parameters, vocabulary: usize) -> Result<Vec<(u32, f32)>, ApiError> {
    let path = parameters.path("logit_bias");
    let Some(mut biases) = parameters.object("logit_bias")? else { return Ok(Vec::new()) };
    let names = biases.names();
    if names.len() > MOST_BIASES {
        let message = format!("'{path}' may name {MOST_BIASES} tokens at most, not {}.", names.len());
        return Err(ApiError::invalid(&path, message));
    }
    let mut taken = Vec::with_capacity(names.len());
    for name in names {
        let token = token_of(&name, vocabulary).ok_or_else(|| no_token(&path, &name, vocabulary))?;
        let bias = biases.number(&name, -100.0..=100.0)?;
        taken.extend(bias.map(|bias| (token, bias as f32)));
    }
    Ok(taken)
}
