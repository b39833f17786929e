//! `prompt` of a completion request: a text or tokens, or several of them.

use crate::detokenizer::Detokenizer;
use crate::served_model::{NotEncoded, ServedModel, TextSide};
use crate::server::openai::error::ApiError;
use crate::server::openai::parameters::{Parameters, wrong_type};
use crate::server::openai::token_ids::token_ids;
use crate::tokenizer::Encoded;
use serde_json::Value;

const EXPECTED: &str = "a string, an array of token ids, or an array of such prompts";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// A prompt as text and as tokens.
#[derive(Clone, Debug)]
pub(super) struct EncodedPrompt {
    pub text: String,
    pub encoded: Encoded,
}

/// Takes `prompt`; at least one. Token ids below `vocabulary` exist.
pub(super) fn take(parameters: &mut Parameters, vocabulary: usize) -> Result<Vec<Prompt>, ApiError> {
    let several = match parameters.any("prompt") {
        None => return Err(ApiError::missing("prompt")),
        Some(Value::String(text)) => return Ok(vec![Prompt::Text(text)]),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong_type("prompt", EXPECTED, &other)),
    };
    match several.first() {
        None => Err(ApiError::invalid("prompt", "'prompt' must not be empty.")),
        Some(Value::Number(_)) => Ok(vec![Prompt::Tokens(token_ids(&several, "prompt", vocabulary)?)]),
        Some(_) => several.into_iter().enumerate().map(|(at, one)| prompt(one, at, vocabulary)).collect(),
    }
}

fn prompt(value: Value, at: usize, vocabulary: usize) -> Result<Prompt, ApiError> {
    let path = format!("prompt[{at}]");
    match value {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(ids) => Ok(Prompt::Tokens(token_ids(&ids, &path, vocabulary)?)),
        other => Err(wrong_type(&path, "a string or an array of token ids", &other)),
    }
}

impl Prompt {
    pub async fn encoded(self, model: &ServedModel) -> Result<EncodedPrompt, NotEncoded> {
        match self {
            Prompt::Text(text) => {
                let encoded = model.encode(text.clone(), true).await?;
                Ok(EncodedPrompt { text, encoded })
            }
            Prompt::Tokens(tokens) => Ok(decoded(tokens, &model.text)),
        }
    }
}

fn decoded(tokens: Vec<u32>, side: &TextSide) -> EncodedPrompt {
    let mut detokenizer = Detokenizer::default();
    let (mut text, mut chars) = (String::new(), 0);
    let mut starts = Vec::with_capacity(tokens.len());
    for token in &tokens {
        starts.push(chars);
        let piece = detokenizer.push(&side.tokenizer.shown_bytes(*token));
        chars += piece.chars().count();
        text.push_str(&piece);
    }
    text.push_str(&detokenizer.finish());
    EncodedPrompt { text, encoded: Encoded { tokens, starts } }
}
